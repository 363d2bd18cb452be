# Installing without a package, and building what is handed on. Included by the top-level Makefile.
#
#   make install                                  to /usr/local, configuration in /etc/winglet, with
#                                                 the service files of what runs here
#   make install INIT=sysv                        or openrc, runit, systemd, none
#   make install DESTDIR=/tmp/root PREFIX=/usr    somewhere else, for packagers: makes no user

BINARY ?= target/release/winglet
export DESTDIR PREFIX SYSCONFDIR INIT BINARY

# What a static binary is built for; with --target named, the flags do not reach build scripts.
TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
STATIC = $(TARGET_DIR)/$(TARGET)/release/winglet
# Paths of this machine stay out of it.
STATIC_FLAGS = -C target-feature=+crt-static --remap-path-prefix=$(CURDIR)=. \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

install: ## install to PREFIX (/usr/local), with the service files of INIT
	contrib/install.sh install

upgrade: ## install, and restart the service if it runs
	contrib/install.sh upgrade

uninstall: ## stop the service and remove what install put there; says what stays
	contrib/install.sh uninstall

static: ## build one file that runs on any Linux of its architecture
	RUSTFLAGS="$(STATIC_FLAGS) $(RUSTFLAGS)" $(CARGO) build --release --locked --target $(TARGET)
	@echo $(STATIC)

dist: static ## pack the static binary with all that installing it takes
	contrib/dist.sh $(STATIC) $(TARGET) $(TARGET_DIR)

deb: build ## build a Debian package in target/
	contrib/deb/build.sh $(BINARY)

test-dist: static ## try the static binary and the tarball in fresh roots (as root)
	contrib/test/dist.sh $(STATIC)

.PHONY: install upgrade uninstall static dist deb test-dist
