# Kakoi's few commands. On a fresh Debian machine with Rust and apt each target installs what it needs itself (integration/provision).

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DESTDIR ?=
CARGO ?= cargo
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
BINDIR := $(DESTDIR)$(PREFIX)/bin
MANDIR := $(DESTDIR)$(PREFIX)/share/man/man1

.PHONY: all demo test lint bench release install uninstall clean

all: release

# A real broker from Debian's package, confined by a policy, attacked from inside. Needs root, leaves nothing behind.
demo:
	integration/provision demo
	integration/demo/run

# Everything: units, tidiness, whole containers, attacks. Parts that need root say SKIP without it; with KAKOI_TEST_REQUIRE=root they fail.
test:
	integration/provision test
	integration/test

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# Beside crun, runc, podman and docker in one run; writes the figures into integration/SPECIFICATION.md.
bench: release
	integration/provision bench
	integration/bench

# Two megabytes less: a panic aborts, so nobody reads tables for unwinding; and what a position-independent program relocates at its start is packed.
SMALL := ["-C", "force-unwind-tables=no", "-C", "link-arg=-Wl,-z,pack-relative-relocs"]

release:
	integration/provision build
	$(CARGO) build --release --locked --config 'target.$(TARGET).rustflags=$(SMALL)' -p kakoi -p kakoid -p kakoi-shim

install: release
	install -d $(BINDIR) $(MANDIR) $(DESTDIR)$(UNITDIR) $(DESTDIR)$(SYSCONFDIR)/kakoi/policies
	install -m 0755 $(RELEASE)/kakoi $(RELEASE)/kakoid $(RELEASE)/kakoi-shim $(BINDIR)/
	ln -sf kakoi-shim $(BINDIR)/kakoi-oci
	sed 's|@BINDIR@|$(PREFIX)/bin|g' runtime/daemon/packaging/kakoid.service > $(DESTDIR)$(UNITDIR)/kakoid.service
	$(RELEASE)/kakoi man $(MANDIR)
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(RELEASE)/kakoi completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kakoi
	$(RELEASE)/kakoi completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kakoi
	$(RELEASE)/kakoi completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/kakoi.fish

# Leaves /etc/kakoi and /var/lib/kakoi: policies and containers are the owner's.
uninstall:
	rm -f $(BINDIR)/kakoi $(BINDIR)/kakoid $(BINDIR)/kakoi-shim $(BINDIR)/kakoi-oci
	rm -f $(DESTDIR)$(UNITDIR)/kakoid.service $(MANDIR)/kakoi.1 $(MANDIR)/kakoi-*.1
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/kakoi $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_kakoi \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/kakoi.fish

clean:
	$(CARGO) clean
