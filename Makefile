# Every verb of the project. CI calls these and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
KERNEL ?= 6.12
SKIPS := target/skips.txt
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.PHONY: part-compile part-release part-fetch part-rest test-root-alone test-root-beside help setup fmt lint build release test test-unit test-root docs-check test-vm test-distributions properties demo chaos bench fuzz golden instance-table packages package-test image image-version ami-plan image-test image-scenarios test-images clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## Install the system packages that are missing (Debian, Ubuntu; root)
	@tests/setup

C_SOURCES = $$(git ls-files '*.c' '*.h')
# By their first line; those in Rust's tests and in test data are not ours to format.
SCRIPTS = $$(git grep -lE '^\#!/bin/((ba)?sh|busybox sh)$$' -- ':!*.rs' ':!*/testdata/*' ':!fuzz/seeds')
MAINTAINER_SCRIPTS = packaging/deb/{preinst,postinst,prerm,postrm}

fmt: ## Format all Rust and C code
	@tests/setup --lint
	cargo fmt --all
	clang-format-19 -i $(C_SOURCES)

lint: ## Formatting, clippy, shell scripts and dependencies (deny.toml), without changing anything
	@tests/setup --lint
	cargo fmt --all --check
	clang-format-19 --dry-run -Werror $(C_SOURCES)
	shellcheck --external-sources --source-path=SCRIPTDIR packaging/maintain.sh $(SCRIPTS)
	for script in $(MAINTAINER_SCRIPTS); do cat packaging/maintain.sh $$script | shellcheck -; done
	cargo clippy --locked --workspace --all-targets -- -D warnings
	$(TEST) --quiet --test dependencies

build: setup ## Debug build of everything
	cargo build --locked --workspace

ARCH := $(shell uname -m)
# Empty, or the architecture that is not this machine's: its executables are in a directory of its name.
CROSS := $(filter-out $(shell uname -m),$(ARCH))
GNU := $(ARCH)-unknown-linux-gnu
MUSL := $(ARCH)-unknown-linux-musl
STATIC := $(TARGET)/static$(CROSS:%=-%)
STATIC_BUILD := cargo build --locked --release --package host-agent
STATIC_FLAGS = RUSTFLAGS="-C target-feature=+crt-static $$(packaging/remap-paths $(TARGET))"
# The plugin is linked with musl: glibc asks the processor for its caches at each start, which a virtual machine traps.
# Where Rust has nothing for musl it is glibc all the same, and said. libbpf finds the kernel's, libelf's and zlib's headers
# behind musl's own; the same flags go to the glibc build, or each of the two would compile again the tools that both run.
# libelf itself is not the distribution's (bpf/build.rs), whose static one cannot be linked everywhere.
# For another architecture (ARCH=aarch64) the compiler is Debian's (packaging/cross-tools), which has no musl; arm64 has no
# such trap. Nothing may look names up: glibc would load shared libraries of the node for it.
release: export LIBBPF_SYS_EXTRA_CFLAGS := -idirafter /usr/include -idirafter /usr/include/$(ARCH)-linux-gnu
release: setup ## Both executables as a node gets them, without shared libraries, in target/static; ARCH=aarch64: in target/static-aarch64
	cargo fetch --locked
ifeq ($(CROSS),)
	$(STATIC_FLAGS) $(STATIC_BUILD) --target $(GNU) --bin sluice --bin sluice-cni
	install -D --target-directory=$(STATIC) $(TARGET)/$(GNU)/release/{sluice,sluice-cni}
	if rustup target add $(MUSL); then \
	  CC_$(subst -,_,$(MUSL))=musl-gcc RUSTFLAGS="$$(packaging/remap-paths $(TARGET))" \
	  $(STATIC_BUILD) --target $(MUSL) --bin sluice-cni; \
	  install --target-directory=$(STATIC) $(TARGET)/$(MUSL)/release/sluice-cni; \
	else echo "release: the plugin is linked with glibc, and takes half a millisecond more to start"; fi
else
	packaging/in-cross $(ARCH) $(TARGET)/cross LIBBPF_SYS_EXTRA_CFLAGS="$$LIBBPF_SYS_EXTRA_CFLAGS" $(STATIC_FLAGS) \
	$(STATIC_BUILD) --bin sluice --bin sluice-cni
	install -D --target-directory=$(STATIC) $(TARGET)/cross/$(GNU)/release/{sluice,sluice-cni}
endif
	! readelf --wide --program-headers $(STATIC)/sluice $(STATIC)/sluice-cni | grep INTERP
	! readelf --wide --symbols $(STATIC)/sluice $(STATIC)/sluice-cni | grep -w getaddrinfo

# First what is compiled and fetched; then what measures in real time, with nothing beside it; then guests, which have a time
# of their own, beside what leaves processors idle; then the image's scenarios, four machines at once.
test: ## Everything but the newest kernel: set-up, lint, unit, root and guest tests, packages, images
	@rm -rf $(PARTS) $(SKIPS) && mkdir -p $(PARTS)
	$(call PART,set-up,tests/setup --lint)
	$(MAKE) --jobs=3 --output-sync=line part-compile part-release part-fetch
	$(call PART,root tests alone,CHAOS_SECONDS=60 $(MAKE) test-root-alone)
	$(MAKE) --jobs=3 --output-sync=line part-guest-6.1 part-guest-6.12 part-rest
	$(call PART,image scenarios,$(MAKE) image-scenarios)
	@echo "skipped on the host kernel (they ran in the guests): $$(cat $(SKIPS) 2>/dev/null | wc -l)"
	@cat $(SKIPS) 2>/dev/null || true
	@echo "seconds of each part:" && cat $(PARTS)/*

# $(call PART,NAME,COMMAND): what it took is printed, and once more at the end of `make test`.
PARTS := target/parts
PART = $(2) && printf '%5d  %s\n' $$SECONDS '$(1)' | tee "$(PARTS)/$$(date +%s) $(1)"

part-compile:
	$(call PART,lint,$(MAKE) lint)
	$(call PART,unit tests,$(MAKE) test-unit)
	$(call PART,debug builds,$(MAKE) build && $(TEST) --quiet --no-run)

part-release:
	$(call PART,release,$(MAKE) release)

part-fetch:
	$(call PART,kernels and containerds,tests/vm/prepare 6.1 6.12 && \
	tests/fixtures/containerd/fetch trixie && tests/fixtures/containerd/fetch sid && tests/fixtures/containerd/fetch runsc)

# Released executables: with debug builds a guest takes a third more of the processor.
part-guest-%:
	$(call PART,guest $*,SLUICE_BIN=$(STATIC) $(MAKE) guest-$*)

part-rest:
	$(call PART,root tests beside guests,$(MAKE) test-root-beside)
	$(call PART,packages and images,$(MAKE) package-test test-images)

# The whole workspace each time, and tests by name: a package by itself has other features of what all depend on, and
# nearly everything would be built once more.
TEST := cargo test --locked --workspace
tests_of = $$(cargo metadata --format-version 1 --no-deps | jq -r '.packages[] | select(.name | test("^($(1))$$")) | \
	.targets[] | select(.kind == ["test"] and .name != "pacing" $(2)) | "--test", .name')

test-unit: setup ## Unit, golden and property tests; no root
	$(TEST) --lib --bins --test pacing $(call tests_of,settings-model|host-agent)
	$(TEST) --doc

# What measures rates in real time has the machine alone.
MEASURED = .src_path | IN($(shell git grep -lE '(chaos|flood|meter)::' 'tests/tests/*.rs' | sed 's,.*,"$(CURDIR)/&",' | paste -sd ,))
ROOT = SLUICE_SKIPS=$(CURDIR)/$(SKIPS) $(TEST)

test-root: build ## Root tests on this kernel, each in its own namespaces
	@rm -f $(SKIPS)
	$(MAKE) test-root-alone
	$(MAKE) test-root-beside

test-root-alone: build
	$(ROOT) $(call tests_of,bpf|tests,and ($(MEASURED)))

test-root-beside: build
	$(ROOT) $(call tests_of,bpf|tests,and ($(MEASURED) | not))

docs-check: build ## Links of all pages, settings in them, and commands, which run as written where they can
	$(TEST) --test documentation

test-vm: guest-$(KERNEL) ## The root tests in a guest, and the units under systemd: KERNEL=6.1, 6.12 or newest; ARCH=aarch64

# Each has one emulated processor and a time of its own: two may run at once, and most of what else runs goes before them.
# Of another architecture with what is released: compiling it for debugging as well takes longer than it saves.
guest-%: export VM_ARCH := $(ARCH)
guest-%: export SLUICE_BIN := $(or $(SLUICE_BIN),$(CROSS:%=$(STATIC)))
guest-%: $(if $(CROSS),release,build)
	nice -n 5 tests/vm/test $*
	nice -n 5 tests/vm/test-systemd $*

SUITES ?= trixie

test-distributions: setup ## Before a release: make release on fresh Debians, SUITES="trixie sid"
	rustup target add $(MUSL) || true
	cargo fetch --locked
	tests/distributions/test $(SUITES)

CHAOS_SECONDS ?= 1800
CHAOS_SEED ?=

chaos: build ## All that can go wrong, at random, CHAOS_SECONDS=1800; CHAOS_SEED=N does it again
	CHAOS_SECONDS=$(CHAOS_SECONDS) $(if $(CHAOS_SEED),CHAOS_SEED=$(CHAOS_SEED)) \
	$(TEST) --test chaos -- --nocapture

PROPERTY_CASES ?= 1000000
properties: setup ## Bounds of the queue over random histories, PROPERTY_CASES=1000000 of each kind
	PROPTEST_CASES=$(PROPERTY_CASES) $(TEST) --release --test pacing histories

demo: build ## Real pods on a private node, iperf3, limit against measured
	target/debug/demo

bench: release ## Figures of speed against peers, and docs/benchmarks.md; ONLY="P1 P6": these, no page
	cargo build --locked --package tests --bins && cargo build --locked --package host-agent --example lookup_time
	SLUICE_BIN=$(STATIC) $(TARGET)/debug/bench $(if $(ONLY),only $(ONLY))

FUZZ_SECONDS ?= 60
FUZZ = cargo fuzz run -s none $(1) fuzz/corpus/$(1) $(2) -- -max_total_time=$(FUZZ_SECONDS) \
	-rss_limit_mb=256 -timeout=5 -print_final_stats=1

fuzz: setup ## Fuzz carriers, conflists, settings, quantities, requests and the plugin, FUZZ_SECONDS=60 each (needs cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz@0.13.2
	mkdir -p fuzz/corpus/{carrier,conflist,settings,quantity,request,plugin}
	$(call FUZZ,carrier,fuzz/seeds/carrier) -max_len=70000 -dict=fuzz/carrier.dict
	$(call FUZZ,conflist,host-agent/testdata/conflist) -max_len=8000 -dict=fuzz/conflist.dict
	$(call FUZZ,settings,settings-model/testdata/v1/valid settings-model/testdata/v1/invalid)
	$(call FUZZ,quantity,fuzz/seeds/quantity) -max_len=64
	$(call FUZZ,request,fuzz/seeds/request) -max_len=9000 -dict=fuzz/request.dict
	$(call FUZZ,plugin,fuzz/seeds/plugin) -max_len=8192 -dict=fuzz/plugin.dict

golden: setup ## Rewrite the golden files of the settings model, user data and conflists, and the pages made from tables
	UPDATE_GOLDEN=1 cargo test --locked --package settings-model
	UPDATE_GOLDEN=1 cargo test --locked --package host-agent --lib

TABLE := data/ec2-instances.csv
instance-table: ## Take FROM=FILE, of the same columns, as the table of instance types; docs/max-pods.md says where to get it
	@test -f "$(FROM)" || { echo "instance-table: say FROM=FILE" >&2; exit 2; }
	{ head --lines=1 $(FROM); tail --lines=+2 $(FROM) | LC_ALL=C sort --field-separator=, --key=1,1; } >$(TABLE).new
	mv $(TABLE) $(TABLE).before && mv $(TABLE).new $(TABLE)
	cargo build --locked --package host-agent || { mv $(TABLE).before $(TABLE); exit 1; }
	rm $(TABLE).before

PACKAGES := $(TARGET)/packages$(CROSS:%=-%)
packages: release ## .deb, .rpm, sysext, tarball, Bottlerocket kit, SBOM, signed checksums, in target/packages; ARCH= as release
	packaging/build $(STATIC) $(PACKAGES)

package-test: packages ## Packages built again, installed, upgraded and removed, on nodes of Debian trixie; ARCH= as release
	tests/packages/test $(PACKAGES) $(STATIC)

BIN_DIR ?= $(STATIC)
IMAGE_VERSION ?= 1.0.0
IMAGES := target/image

IMAGE = IMAGE_VERSION='$(1)' image-build/build $(BIN_DIR) '$(IMAGES)/$(1)'
image-version:
	@image-build/check-version '$(IMAGE_VERSION)'

image: image-version $(if $(filter $(STATIC),$(BIN_DIR)),release) ## The immutable node image, target/image/1.0.0; IMAGE_VERSION=, BIN_DIR=, KUBELET=FILE, UPDATE_URL=, REFRESH=1
	$(call IMAGE,$(IMAGE_VERSION))

ami-plan: ## Check what EC2 needs of the image in target/image/IMAGE_VERSION, and print the commands that make an AMI of it
	image-build/ami-plan '$(IMAGES)/$(IMAGE_VERSION)'

# The probe comes from outside: the image has nothing that a test could use, but a C library as new as most. With a stand-in
# for kubelet in each image: what is there for kubelet is worth nothing until one has read it.
test-images: packages
	cargo build --locked --workspace
	mkdir -p $(IMAGES)
	strip -o $(IMAGES)/probe $(TARGET)/debug/image_probe
	strip -o $(IMAGES)/kubelet $(TARGET)/debug/kubelet_stand_in
	KUBELET=$(IMAGES)/kubelet $(call IMAGE,1.0.0)
	KUBELET=$(IMAGES)/kubelet $(call IMAGE,1.1.0)
	KUBELET=$(IMAGES)/kubelet WITHOUT_SLUICE=1 $(call IMAGE,bare)

image-scenarios:
	$(TARGET)/debug/image_test $(TARGET) $(IMAGES)/probe $(ONLY)

image-test: test-images ## Boot the image in QEMU, update it, break it; ONLY="boot pods": these scenarios
	$(MAKE) image-scenarios

clean: ## Remove what was built; downloads stay in ~/.cache/sluice
	cargo clean
