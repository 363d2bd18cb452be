# The front door: `make` lists what there is.

CARGO ?= cargo
# Most tests wait most of the time.
export RUST_TEST_THREADS ?= 5
TARGET_DIR = $(or $(CARGO_TARGET_DIR),target)
BINARY = $(TARGET_DIR)/release/winglet

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the release binary
	$(CARGO) build --release --locked

test: ## run the tests; the last lines name what was skipped
	$(CARGO) test --locked --no-fail-fast

test-all: ## run those that take long as well, and try the tarball
	WINGLET_TESTS=all $(CARGO) test --locked --no-fail-fast
	WINGLET_TEST_OVERLAY=$(or $(WINGLET_TEST_OVERLAY),1) $(MAKE) test-dist

lint: ## check format, clippy and documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

demo: build ## take a tour of the sample node
	contrib/demo.sh $(BINARY)

bench: build ## measure speed and memory (ONLY=shared: one part)
	contrib/bench/run.sh $(BINARY) $(if $(ONLY),--only $(ONLY))

fuzz: ## fuzz what parses strangers' bytes
	contrib/fuzz.sh

# install, uninstall, static, dist, deb
-include contrib/install.mk

.PHONY: help build test test-all lint demo bench fuzz
