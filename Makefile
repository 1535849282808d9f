# Freshet. `make run` shows it, `make test` is everything that CI runs.
SHELL := /bin/bash
.DEFAULT_GOAL := run
.PHONY: run test release bench kill-test build build-packages test-packages servers lint

# Compiled dependencies live outside the checkout, so that a fresh clone builds quickly.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/freshet/target
export FRESHET_IT_HOME ?= $(HOME)/.cache/freshet-it
DEBUG := $(CARGO_TARGET_DIR)/debug/freshet
RELEASE := $(CARGO_TARGET_DIR)/release/freshet

## run: build and start the demo (no broker, no object store, no network needed)
run: build
	exec $(DEBUG) demo $(ARGS)

build: build-packages
	cargo build --locked --workspace

## test: everything that CI runs
test: test-packages servers lint
	cargo build --locked --workspace
	FRESHET_IT=require cargo test --locked --workspace --no-fail-fast -- --test-threads=$${TEST_THREADS:-2}

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

servers: test-packages
	tests/servers/install.sh

## release: the fast binary
release: build-packages
	cargo build --locked --workspace --release
	@echo "built $(RELEASE)"

## bench: figures of the release binary (BENCH=name for one of them)
bench: release
	$(CARGO_TARGET_DIR)/release/bench $(BENCH)

## kill-test: the long form of the kill test (RUNS runs, default 50)
kill-test: build servers
	FRESHET_IT=require FRESHET_KILL_RUNS=$${RUNS:-50} cargo test --locked --workspace --test it -- kill --nocapture

# need COMMAND-OR-TEST PACKAGE: one line for each thing a bare machine may lack.
define packages
missing=(); \
need() { eval "$$1" >/dev/null 2>&1 || missing+=("$$2"); }; \
need 'command -v c++' g++; need 'command -v pkg-config' pkg-config; need 'pkg-config --exists openssl' libssl-dev; $(1) \
command -v cargo >/dev/null || { echo "Rust 1.94 or later is needed: install it with rustup" >&2; exit 1; }; \
if (( $${#missing[@]} )); then \
  as=; [[ $$(id -u) == 0 ]] || as=sudo; \
  if command -v apt-get >/dev/null && { [[ -z $$as ]] || sudo -n true 2>/dev/null; }; then \
    echo "installing $${missing[*]}"; $$as apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$as apt-get install -y -qq "$${missing[@]}" >/dev/null; \
  else \
    echo "please install these packages (Debian and Ubuntu names): $${missing[*]}" >&2; exit 1; \
  fi; \
fi
endef

build-packages:
	@$(call packages,)

test-packages:
	@$(call packages,need 'command -v psql' postgresql-client; need 'command -v java' default-jre-headless; \
	need 'command -v mvn' maven; need 'python3 -c "import ensurepip"' python3-venv; need 'command -v setpriv' util-linux;)
