# Installing without a package, and building one. Included by the top-level Makefile.
#
#   make install                                  to /usr/local, configuration in /etc/winglet
#   make install DESTDIR=/tmp/root PREFIX=/usr    somewhere else, for packagers
#
# Users, state directory and starting the service are the administrator's (or the package's); the
# last lines of `install` say how.

DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
BINARY ?= target/release/winglet
INSTALL ?= install

bindir = $(DESTDIR)$(PREFIX)/bin
mandir = $(DESTDIR)$(PREFIX)/share/man
sharedir = $(DESTDIR)$(PREFIX)/share
docdir = $(sharedir)/doc/winglet
confdir = $(DESTDIR)$(SYSCONFDIR)/winglet
unitdir = $(DESTDIR)$(PREFIX)/lib/systemd/system

# The configuration that a node starts from; an edited one stays, with the new one beside it.
SAMPLE = contrib/deb/config.yml

install: ## install to PREFIX (/usr/local), below DESTDIR
	@test -x $(BINARY) || { echo "$(BINARY) is not there: make build" >&2; exit 1; }
	$(INSTALL) -d $(bindir) $(mandir)/man8 $(mandir)/man5 $(docdir)/proxy $(docdir)/service $(unitdir) $(confdir)
	$(INSTALL) -m 0755 $(BINARY) $(bindir)/winglet
	$(INSTALL) -m 0644 contrib/man/winglet.8 $(mandir)/man8/
	$(INSTALL) -m 0644 contrib/man/winglet.yml.5 $(mandir)/man5/
	$(INSTALL) -D -m 0644 contrib/completions/winglet.bash $(sharedir)/bash-completion/completions/winglet
	$(INSTALL) -D -m 0644 contrib/completions/_winglet $(sharedir)/zsh/site-functions/_winglet
	$(INSTALL) -D -m 0644 contrib/completions/winglet.fish $(sharedir)/fish/vendor_completions.d/winglet.fish
	sed 's#/usr/bin/winglet#$(PREFIX)/bin/winglet#' contrib/systemd/winglet.service >$(unitdir)/winglet.service
	chmod 0644 $(unitdir)/winglet.service
	$(INSTALL) -m 0644 contrib/systemd/winglet.socket $(unitdir)/
	$(INSTALL) -m 0644 contrib/proxy/nginx.conf contrib/proxy/Caddyfile contrib/proxy/haproxy.cfg contrib/proxy/haproxy-front-ends.cfg $(docdir)/proxy/
	cp -R contrib/sysv contrib/openrc contrib/runit contrib/default contrib/logrotate $(docdir)/service/
	@if [ ! -e $(confdir)/config.yml ]; then \
		$(INSTALL) -m 0640 $(SAMPLE) $(confdir)/config.yml; \
		cksum <$(confdir)/config.yml >$(docdir)/config.cksum; \
	elif [ "$$(cksum <$(confdir)/config.yml)" = "$$(cat $(docdir)/config.cksum 2>/dev/null)" ]; then \
		$(INSTALL) -m 0640 $(SAMPLE) $(confdir)/config.yml; \
		cksum <$(confdir)/config.yml >$(docdir)/config.cksum; \
	elif ! cmp -s $(SAMPLE) $(confdir)/config.yml; then \
		$(INSTALL) -m 0640 $(SAMPLE) $(confdir)/config.yml.new; \
		echo "kept $(confdir)/config.yml, which was edited; the new sample is config.yml.new beside it"; \
	fi
	@echo
	@echo "Installed. Once on this host: adduser --system --group --no-create-home winglet"
	@echo "Then put the node's token into $(SYSCONFDIR)/winglet/config.yml and start the service:"
	@echo "  systemd   systemctl daemon-reload && systemctl enable --now winglet"
	@echo "  others    $(PREFIX)/share/doc/winglet/service: sysv/winglet, openrc/winglet, runit/run;"
	@echo "            the first lines of each say where it goes"

uninstall: ## remove what install put there; an edited configuration stays
	rm -f $(bindir)/winglet $(mandir)/man8/winglet.8 $(mandir)/man5/winglet.yml.5
	rm -f $(sharedir)/bash-completion/completions/winglet $(sharedir)/zsh/site-functions/_winglet
	rm -f $(sharedir)/fish/vendor_completions.d/winglet.fish
	rm -f $(unitdir)/winglet.service $(unitdir)/winglet.socket $(confdir)/config.yml.new
	@if [ -e $(confdir)/config.yml ]; then \
		if [ "$$(cksum <$(confdir)/config.yml)" = "$$(cat $(docdir)/config.cksum 2>/dev/null)" ]; then \
			rm -f $(confdir)/config.yml; \
		else \
			echo "kept $(confdir)/config.yml, which was edited"; \
		fi; \
	fi
	rm -rf $(docdir)
	@# Only what is empty now, and never above PREFIX; DESTDIR is the packager's own.
	@for dir in $(sharedir)/bash-completion/completions $(sharedir)/bash-completion $(sharedir)/zsh/site-functions \
		$(sharedir)/zsh $(sharedir)/fish/vendor_completions.d $(sharedir)/fish $(unitdir) \
		$(DESTDIR)$(PREFIX)/lib/systemd $(sharedir)/doc $(mandir)/man8 $(mandir)/man5 $(confdir); do \
		rmdir "$$dir" 2>/dev/null || true; \
	done

deb: build ## build a Debian package in target/
	contrib/deb/build.sh $(BINARY)

.PHONY: install uninstall deb
