# `make help` lists the targets.

PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR   = $(PREFIX)/bin
DATADIR  = $(PREFIX)/share

# The first cargo on PATH may be too old. tools/toolchain runs only when a target needs it.
with_cargo = PATH="$$(tools/toolchain):$$PATH" && export PATH &&
# The release binary. It is a link to the file that cargo writes below the target's name (tools/build-release).
bin = target/orlop
# The runtime that the demos use.
ORLOP ?= $(CURDIR)/$(bin)
# `make test` must not get ORLOP: the tests would test that binary, which may be old, instead of the one that cargo builds.
demo-server conformance conformance-bats engines test-vm bench bench-scale bench-filter bench-where crash differential: export ORLOP := $(ORLOP)

.PHONY: all help toolchain demo demo-server test test-release test-vm test-vm-short crash security fuzz differential conformance conformance-bats engines bench bench-scale bench-filter bench-where bench-ablation layout lint install clean
.DEFAULT_GOAL = all

all: ## Build the static release binary, target/orlop
	@built=$$(ORLOP_COMMIT=$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown) tools/build-release) && \
		ln -sfn "$${built#"$(CURDIR)/target/"}" $(bin)

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 18

toolchain: ## Install from Debian a new enough Rust compiler and musl, if they are missing
	@tools/toolchain --install >/dev/null

demo: ## Run a container of busybox and show what it sees (root; installs missing packages)
	@tools/as-root demo
	@tools/need busybox:busybox-static
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@bundles/make-busybox.sh
	@echo
	@echo "# orlop run --bundle bundles/busybox orlop-demo"
	@$(ORLOP) delete --force orlop-demo 2>/dev/null || true # left by an interrupted demo
	@$(ORLOP) run --bundle bundles/busybox orlop-demo

demo-server: ## Run nginx in a Debian userland as an ordinary user, fetch a page (root; installs missing packages)
	@tools/as-root demo-server
	@tools/need busybox:busybox-static mmdebstrap:mmdebstrap jq:jq ps:procps
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@bundles/make-server.sh
	@bundles/demo-server.sh

# Programs that the black-box tests execute.
test_needs = busybox:busybox-static script:bsdutils unshare:util-linux newuidmap:uidmap ps:procps jq:jq

test: ## Run all tests: unit, black-box, the quick part of integration/ (root)
	@tools/as-root test
	@$(MAKE) --no-print-directory toolchain
	@tools/need $(test_needs)
	$(with_cargo) cargo test --locked --no-fail-fast
	@$(with_cargo) integration/smoke/run.sh "$(CURDIR)/target/$$(rustc -vV | sed -n 's/^host: //p')/debug/orlop"
	@integration/crash/quick.sh

test-release: all ## Run the black-box tests on the optimised release binary (root)
	@tools/as-root test-release
	@tools/need $(test_needs)
	$(with_cargo) cargo build --locked --example guest && ORLOP="$(CURDIR)/$(bin)" cargo test --locked --no-fail-fast --test main
	@integration/smoke/run.sh "$(CURDIR)/$(bin)"

# STRIDE=N visits each Nth point only; LANES points run at a time; CRASH has more options (integration/crash/main.rs).
STRIDE ?= 1
LANES  ?= $(shell nproc)
CRASH  ?=

test-vm: ## Run the tests for hosts that boot systemd in a Debian guest (root; SUITE=<runc's source tree>: its suite)
	@tools/as-root test-vm
	@tools/need qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs cpio:cpio xz:xz-utils zstd:zstd jq:jq strip:binutils
	@$(MAKE) --no-print-directory all
	integration/vm/test.sh $(if $(SUITE),bats-vm bats-vm-systemd bats-vm-login)

test-vm-short: all ## Run the part of test-vm that each change must pass (root)
	@tools/as-root test-vm-short
	@ORLOP="$(CURDIR)/$(bin)" integration/vm/short.sh

crash: all ## Kill the runtime, or fail its calls, at every point; look for leftovers (root; STRIDE=n is faster)
	@tools/as-root crash
	$(with_cargo) cargo build --release --locked --example crash --example guest
	@echo "64,000 points: $$((64000 / $(STRIDE) / $(LANES) / 11 / 60 + 1)) minutes if nothing else runs here, twice that if something does"
	@crash=$$($(with_cargo) echo target/$$(rustc -vV | sed -n 's/^host: //p')/release/examples/crash); results=target/crash.tsv; status=0; rm -f $$results; \
		for who in root userns rootless; do \
			$$crash sweep --runtime $(bin) --as $$who --stride $(STRIDE) --lanes $(LANES) --record $$results $(CRASH) || status=1; \
		done; \
		$$crash table $$results; $$crash stress --runtime $(bin) || status=1; exit $$status

security: ## Run all attacks of integration/security, with long races and slow tests (root; RACES=n)
	@tools/as-root security
	@$(MAKE) --no-print-directory toolchain
	@tools/need busybox:busybox-static script:bsdutils unshare:util-linux newuidmap:uidmap ps:procps
	$(with_cargo) cargo build --locked --examples && \
		ORLOP_RACES=$(or $(RACES),300) ORLOP_TEST_PATIENCE=120 cargo test --locked --test main -- --include-ignored \
		attacks:: security:: waits:: exec:: fds:: mounts:: bad_input:: rootless:: entering:: exact_privileges:: host_out_of_reach::

# The seconds for each target. TARGETS="config wire" runs only these targets.
SECONDS ?= 60

fuzz: ## Fuzz all code that reads input, 8 targets of SECONDS=60 each (installs cargo-fuzz; builds for minutes)
	@tools/need c++:g++
	@$(MAKE) --no-print-directory toolchain
	$(with_cargo) SECONDS_EACH=$(SECONDS) TARGETS="$(TARGETS)" fuzz/run.sh

# The number of configurations, and their seed: the same seed gives the same configurations.
CONFIGS ?= 200
SEED    ?= 1

differential: ## Run CONFIGS=200 mutated configurations with orlop and with runc, explain each difference (root)
	@tools/as-root differential
	@tools/need cc:gcc python3:python3 runc:runc unshare:util-linux
	@$(MAKE) --no-print-directory all
	@integration/differential/run.sh --configs $(CONFIGS) --seed $(SEED)

conformance-bats: ## Run the integration suite of runc, whose source tree is SUITE, with orlop (root; an hour)
	@tools/as-root conformance-bats
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/conformance/bats.sh "$(SUITE)"

conformance: ## Run runtime-tools' validation programs with orlop (root; fetches and builds them; SUITE=<a built tree>: those)
	@tools/as-root conformance
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@RECORD=1 integration/conformance/runtime-tools.sh "$(SUITE)"

engines: ## Test Docker, containerd, its CRI and podman with orlop (root; installs them; fifteen minutes)
	@tools/as-root engines
	@$(MAKE) --no-print-directory all
	@status=0; for engine in docker containerd cri podman; do RECORD=1 integration/engines/$$engine.sh || status=1; done; exit $$status

bench: ## Time orlop, crun, runc and the kernel's floor in turn (root; QUICK=1 takes two minutes)
	@tools/as-root bench
	@tools/need cc:gcc busybox:busybox-static python3:python3 strace:strace crun:crun runc:runc
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/bench.py

bench-scale: ## Time orlop and crun with many containers, mounts and seccomp rules (root; MOST=1000)
	@tools/as-root bench-scale
	@tools/need cc:gcc busybox:busybox-static python3:python3 crun:crun
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/scale.py

bench-filter: ## Time system calls behind Docker's seccomp filter, by orlop and by libseccomp (root; a minute)
	@tools/as-root bench-filter
	@tools/need cc:gcc busybox:busybox-static python3:python3 crun:crun runc:runc
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/filter.py

bench-where: ## Show which calls of orlop and of the floor take the time (root; installs perf; a minute)
	@tools/as-root bench-where
	@tools/need cc:gcc busybox:busybox-static python3:python3 perf:linux-perf
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/where.py

layout: ## Write target/layout.ld, which builds use to place hot functions together (root, x86_64; five minutes)
	@tools/as-root layout
	@tools/need cc:gcc nm:binutils busybox:busybox-static python3:python3
	@$(MAKE) --no-print-directory toolchain
	@ORLOP=$$(CARGO_PROFILE_RELEASE_STRIP=false tools/build-release --target-dir target/layout) && export ORLOP && \
		integration/bench/layout.py

bench-ablation: ## Time this tree with and without each trick of the build (root; builds for half an hour)
	@tools/as-root bench-ablation
	@tools/need busybox:busybox-static python3:python3 strace:strace
	@$(MAKE) --no-print-directory toolchain
	@integration/bench/ablation.py

lint: ## Check format, lints, scripts and dependencies (installs cargo-deny if possible)
	@tools/toolchain --lint >/dev/null
	$(with_cargo) cargo fmt --check
	$(with_cargo) cargo clippy --locked --all-targets -- -D warnings -A missing_docs
	$(with_cargo) cargo fmt --check --manifest-path fuzz/Cargo.toml
	@$(with_cargo) if command -v c++ >/dev/null; then \
		cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz/lint --locked --all-targets -- -D warnings; \
		else echo "libfuzzer needs a C++ compiler, and there is none: fuzz/ not checked"; fi
	@# SC3013, SC3045: POSIX lacks test -nt and ulimit -n, but dash and busybox have them.
	@if command -v shellcheck >/dev/null; then shellcheck --severity=warning --exclude=SC3013,SC3045 $$(grep -rlE '^#!/bin/(ba)?sh' bundles tools .ci); \
		else echo "shellcheck is not installed: scripts not checked"; fi
	@$(with_cargo) PATH="$(CURDIR)/target/lint/bin:$$PATH"; cargo deny --version >/dev/null 2>&1 || \
		cargo install --quiet --locked --root target/lint --target-dir target/lint cargo-deny || true; \
		if ! cargo deny --version >/dev/null 2>&1; then \
			echo "cargo-deny cannot be installed: licences, sources and advisories of dependencies not checked"; \
		elif cargo deny fetch db >/dev/null 2>&1; then cargo deny --locked check; \
		else echo "the list of advisories cannot be fetched: advisories not checked" && \
			cargo deny --locked check bans licenses sources; fi

install: all ## Install the binary, man pages and shell completions below $(DESTDIR)$(PREFIX)
	rm -rf target/assets
	$(with_cargo) cargo run --locked --quiet --example assets -- target/assets
	install -D -m 755 $(bin) $(DESTDIR)$(BINDIR)/orlop
	install -d $(DESTDIR)$(DATADIR)/man/man8
	install -m 644 target/assets/*.8 $(DESTDIR)$(DATADIR)/man/man8
	install -D -m 644 target/assets/orlop.bash $(DESTDIR)$(DATADIR)/bash-completion/completions/orlop
	install -D -m 644 target/assets/_orlop $(DESTDIR)$(DATADIR)/zsh/site-functions/_orlop
	install -D -m 644 target/assets/orlop.fish $(DESTDIR)$(DATADIR)/fish/vendor_completions.d/orlop.fish

clean: ## Remove everything that was built or made
	rm -rf target bundles/busybox/rootfs bundles/server/rootfs bundles/server/config.json
