# make help says what there is.

PREFIX  ?= /usr/local
DESTDIR ?=
BINDIR   = $(PREFIX)/bin
DATADIR  = $(PREFIX)/share

# A new enough cargo may not be the first on PATH; nothing is run here before it is needed.
with_cargo = PATH="$$(tools/toolchain):$$PATH" && export PATH &&
# The release binary: a link to where cargo puts it, below the name of the target (tools/build-release).
bin = target/orlop
# The runtime that the demos use.
ORLOP ?= $(CURDIR)/$(bin)
# Not for the tests of this tree: they would take it for the runtime to be tested, and it may be of yesterday.
demo-server conformance conformance-bats engines test-vm bench bench-scale bench-filter bench-where crash differential: export ORLOP := $(ORLOP)

.PHONY: all help toolchain demo demo-server test test-release test-vm test-vm-short crash security fuzz differential conformance conformance-bats engines bench bench-scale bench-filter bench-where bench-ablation layout lint install clean
.DEFAULT_GOAL = all

all: ## Build the static release binary, target/orlop
	@built=$$(ORLOP_COMMIT=$$(git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown) tools/build-release) && \
		ln -sfn "$${built#"$(CURDIR)/target/"}" $(bin)

help: ## Show this text
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

toolchain: ## Install from Debian what is missing of a Rust compiler that is new enough, and of musl
	@tools/toolchain --install >/dev/null

demo: ## Run a container of busybox and show what it sees (root; installs what is missing)
	@tools/as-root demo
	@tools/need busybox:busybox-static
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@bundles/make-busybox.sh
	@echo
	@echo "# orlop run --bundle bundles/busybox orlop-demo"
	@$(ORLOP) delete --force orlop-demo 2>/dev/null || true # of a demo that was interrupted
	@$(ORLOP) run --bundle bundles/busybox orlop-demo

demo-server: ## Run nginx in a Debian userland as an ordinary user, fetch a page (root; installs what is missing)
	@tools/as-root demo-server
	@tools/need busybox:busybox-static mmdebstrap:mmdebstrap jq:jq ps:procps
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@bundles/make-server.sh
	@bundles/demo-server.sh

# What the black-box tests execute.
test_needs = busybox:busybox-static script:bsdutils unshare:util-linux newuidmap:uidmap ps:procps jq:jq

test: ## Run all tests: unit, black-box, the quick part of integration/ (root)
	@tools/as-root test
	@$(MAKE) --no-print-directory toolchain
	@tools/need $(test_needs)
	$(with_cargo) cargo test --locked --no-fail-fast
	@$(with_cargo) integration/smoke/run.sh "$(CURDIR)/target/$$(rustc -vV | sed -n 's/^host: //p')/debug/orlop"
	@integration/crash/quick.sh

test-release: all ## Run the black-box tests on the release binary, which is optimised and built with musl (root)
	@tools/as-root test-release
	@tools/need $(test_needs)
	$(with_cargo) cargo build --locked --example guest && ORLOP="$(CURDIR)/$(bin)" cargo test --locked --no-fail-fast --test main
	@integration/smoke/run.sh "$(CURDIR)/$(bin)"

# Every Nth point only, for a first look; how many at a time; which operations, ways to interfere and views:
# integration/crash/main.rs.
STRIDE ?= 1
LANES  ?= $(shell nproc)
CRASH  ?=

test-vm: ## Tests for hosts that boot systemd, in a Debian guest (root; SUITE=<runc's source tree>: its suite)
	@tools/as-root test-vm
	@tools/need qemu-system-x86_64:qemu-system-x86 mmdebstrap:mmdebstrap mkfs.ext4:e2fsprogs cpio:cpio xz:xz-utils zstd:zstd jq:jq strip:binutils
	@$(MAKE) --no-print-directory all
	integration/vm/test.sh $(if $(SUITE),bats-vm bats-vm-systemd bats-vm-login)

test-vm-short: all ## The part of test-vm that every change goes through (root)
	@tools/as-root test-vm-short
	@ORLOP="$(CURDIR)/$(bin)" integration/vm/short.sh

crash: all ## Kill the runtime, or fail its calls, at every point; look for what is left (root; STRIDE=n is faster)
	@tools/as-root crash
	$(with_cargo) cargo build --release --locked --example crash --example guest
	@echo "64,000 points: $$((64000 / $(STRIDE) / $(LANES) / 11 / 60 + 1)) minutes if nothing else runs here, twice that if something does"
	@crash=$$($(with_cargo) echo target/$$(rustc -vV | sed -n 's/^host: //p')/release/examples/crash); results=target/crash.tsv; status=0; rm -f $$results; \
		for who in root userns rootless; do \
			$$crash sweep --runtime $(bin) --as $$who --stride $(STRIDE) --lanes $(LANES) --record $$results $(CRASH) || status=1; \
		done; \
		$$crash table $$results; $$crash stress --runtime $(bin) || status=1; exit $$status

security: ## All attacks of integration/security, with long races, and the tests that take a minute (root; RACES=n)
	@tools/as-root security
	@$(MAKE) --no-print-directory toolchain
	@tools/need busybox:busybox-static script:bsdutils unshare:util-linux newuidmap:uidmap ps:procps
	$(with_cargo) cargo build --locked --examples && \
		ORLOP_RACES=$(or $(RACES),300) ORLOP_TEST_PATIENCE=120 cargo test --locked --test main -- --include-ignored \
		attacks:: security:: waits:: exec:: fds:: mounts:: bad_input:: rootless:: entering:: exact_privileges:: host_out_of_reach::

# How long each target runs; TARGETS="config wire" runs some of them.
SECONDS ?= 60

fuzz: ## Fuzz everything that reads input, SECONDS=60 each of 8 targets (installs cargo-fuzz; builds minutes)
	@tools/need c++:g++
	@$(MAKE) --no-print-directory toolchain
	$(with_cargo) SECONDS_EACH=$(SECONDS) TARGETS="$(TARGETS)" fuzz/run.sh

# How many configurations, and which: the same seed gives the same.
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

engines: ## Docker, containerd, its CRI and podman day to day with orlop (root; installs them; fifteen minutes)
	@tools/as-root engines
	@$(MAKE) --no-print-directory all
	@status=0; for engine in docker containerd cri podman; do RECORD=1 integration/engines/$$engine.sh || status=1; done; exit $$status

bench: ## Time orlop beside crun, runc and the kernel's floor, in turn (root; QUICK=1 for two minutes of it)
	@tools/as-root bench
	@tools/need cc:gcc busybox:busybox-static python3:python3 strace:strace crun:crun runc:runc
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/bench.py

bench-scale: ## Curves: containers alive, at once, mounts, seccomp rules, least memory (root; MOST=1000)
	@tools/as-root bench-scale
	@tools/need cc:gcc busybox:busybox-static python3:python3 crun:crun
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/scale.py

bench-filter: ## What a seccomp filter of Docker's breadth costs each call, beside libseccomp's (root; a minute)
	@tools/as-root bench-filter
	@tools/need cc:gcc busybox:busybox-static python3:python3 crun:crun runc:runc
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/filter.py

bench-where: ## Where the time goes, call by call, beside the floor (root; installs perf; a minute)
	@tools/as-root bench-where
	@tools/need cc:gcc busybox:busybox-static python3:python3 perf:linux-perf
	@$(MAKE) --no-print-directory toolchain
	@$(MAKE) --no-print-directory all
	@integration/bench/where.py

layout: ## Write target/layout.ld: which functions the usual verbs execute; builds use it (root, x86_64; five minutes)
	@tools/as-root layout
	@tools/need cc:gcc nm:binutils busybox:busybox-static python3:python3
	@$(MAKE) --no-print-directory toolchain
	@ORLOP=$$(CARGO_PROFILE_RELEASE_STRIP=false tools/build-release --target-dir target/layout) && export ORLOP && \
		integration/bench/layout.py

bench-ablation: ## What each trick of the build gives: this tree without it, beside it (root; builds half an hour)
	@tools/as-root bench-ablation
	@tools/need busybox:busybox-static python3:python3 strace:strace
	@$(MAKE) --no-print-directory toolchain
	@integration/bench/ablation.py

lint: ## Check format, lints, scripts, and what the dependencies may be (installs cargo-deny where it can)
	@tools/toolchain --lint >/dev/null
	$(with_cargo) cargo fmt --check
	$(with_cargo) cargo clippy --locked --all-targets -- -D warnings -A missing_docs
	$(with_cargo) cargo fmt --check --manifest-path fuzz/Cargo.toml
	@$(with_cargo) if command -v c++ >/dev/null; then \
		cargo clippy --manifest-path fuzz/Cargo.toml --target-dir target/fuzz/lint --locked --all-targets -- -D warnings; \
		else echo "there is no C++ compiler, and libfuzzer needs one: fuzz/ not checked"; fi
	@# 3013, 3045: test -nt and ulimit -n are not in POSIX, but in dash and busybox.
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

clean: ## Remove everything that was made
	rm -rf target bundles/busybox/rootfs bundles/server/rootfs bundles/server/config.json
