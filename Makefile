# Kakoi's few commands. On a fresh Debian machine with Rust and apt each target installs what it needs itself (integration/provision).

PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
DESTDIR ?=
CARGO ?= cargo
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release
# 1 installs the OpenRC script, 0 does not; without it, it is installed where /sbin/openrc-run is.
OPENRC ?=
PACKAGING := DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' SYSCONFDIR='$(SYSCONFDIR)' UNITDIR='$(UNITDIR)' OPENRC='$(OPENRC)' \
	runtime/daemon/packaging/install

CUTS ?= 10000
FUZZ_SECONDS ?= 60

.PHONY: all demo test interop docker-suites fuzz cuts powercut device-test lint bench release install uninstall clean

all: release

# A real broker from Debian's package, confined by a policy, attacked from inside. Needs root, leaves nothing behind.
demo:
	integration/provision demo
	integration/demo/run

# Everything: units, tidiness, whole containers, attacks. Parts that need root say SKIP without it; with KAKOI_TEST_REQUIRE=root they fail
# (integration/src/required.rs).
test:
	integration/provision test
	integration/test
	integration/packaging

# Images go round between Kakoi, dockerd, Podman and skopeo: each runs what the others made and pushed. About a minute beside the build.
interop: release
	integration/provision test
	integration/interop $(RELEASE)

# The tests that bollard and aiodocker are published with judge docker.sock: what fails must stand in integration/docker-suites.txt, with its reason.
# Fetches both from the registries of crates and of Python. About fifteen minutes. DOCKER_PY=FOLDER judges by a checkout of docker-py too.
docker-suites: release
	integration/provision suites
	integration/docker-suites $(RELEASE) bollard aiodocker $(DOCKER_PY)

# Throws what coverage suggests at every parser of what comes from outside, FUZZ_SECONDS at each. `make test` throws some thousand mutations.
fuzz:
	integration/provision fuzz
	FUZZ_SECONDS=$(FUZZ_SECONDS) integration/fuzz/run

# Ten thousand power cuts each under the image store and under the records, on disks in memory; prints their number and the seeds. `make test` makes
# some hundred. KAKOI_CUT_SEED=N runs one again.
cuts:
	integration/provision build
	KAKOI_CUTS=$(CUTS) $(CARGO) test --locked -p kakoi-image -p kakoid power_cuts -- --nocapture

# Two hundred power cuts of a whole device: a QEMU guest works on images on an ext4 whose writes are logged, cut, replayed and checked. Some minutes.
powercut:
	integration/provision powercut
	integration/powercut

# Virtual machines (QEMU, no KVM): the tests of whole containers where only control groups of version 2 are mounted, a container on aarch64, and a
# device with U-Boot and two slots whose new version is broken in each way. Half an hour or more; FILTER=version_2 runs what has that in its name.
FILTER ?=
device-test: release
	integration/provision device
	integration/device/run $(FILTER)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# Beside crun, runc, podman and docker in one run; writes the figures into integration/SPECIFICATION.md.
bench: release
	integration/provision bench
	integration/bench

# A tenth less: a panic aborts, so nobody reads tables for unwinding; and what a position-independent program relocates at its start is packed.
SMALL := ["-C", "link-arg=-Wl,--no-eh-frame-hdr", "-C", "link-arg=-Wl,-T,.cargo/no-unwind-tables.ld", \
	"-C", "link-arg=-Wl,-z,pack-relative-relocs"]

release:
	integration/provision build
	$(CARGO) build --release --locked --config 'target.$(TARGET).rustflags=$(SMALL)' -p kakoi -p kakoid -p kakoi-shim

# Says at its end how others than root may use the daemon: by the group `kakoi`, which is as good as root within the owner's ceiling.
install: release
	$(PACKAGING) $(RELEASE)

# Removes exactly what was installed (PREFIX/share/kakoi/installed). Leaves /etc/kakoi and /var/lib/kakoi: policies and containers are the owner's.
uninstall:
	$(PACKAGING) --remove

clean:
	$(CARGO) clean
