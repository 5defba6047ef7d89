# Small verbs. `make setup` is what the others use; nothing here needs more than Python 3.11 and a package index.
PYTHON ?= python3.11
VENV := .venv
CONFORMANCE := .venv-conformance
BIN := $(VENV)/bin
ARGS ?=

PREFIX ?= build/runtime

.PHONY: setup setup-conformance demo test lint types check fuzz soak chaos bench-serve attacks bench-camo bench-swap \
	bench-shadow console-screenshots results reproduce lock install-packages install-runtime image image-cuda clean

# An environment, from a lock alone: $(call environment,FOLDER,LOCK). What has no hash in the lock is not installed.
define environment
$(PYTHON) -m venv $(1)
$(1)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $(2)
endef
# This project into an environment: nothing is fetched, setuptools comes from the lock.
install = bin/pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation

setup: $(VENV)/.ready
$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(call environment,$(VENV),requirements-dev.lock)
	$(VENV)/$(install) --editable .
	touch $@

setup-conformance: $(CONFORMANCE)/.ready
$(CONFORMANCE)/.ready: requirements-conformance.lock
	$(call environment,$(CONFORMANCE),requirements-conformance.lock)
	touch $@

# A miner without its makers' tools, as the Dockerfile and a host with systemd have it: make install-runtime PREFIX=/opt/deepfake-miner
install-packages: $(PREFIX)/.packages
$(PREFIX)/.packages: requirements.lock
	$(call environment,$(PREFIX),requirements.lock)
	touch $@

# build/lib would bring modules along that are gone from the tree.
install-runtime: install-packages
	rm -rf build/lib
	$(PREFIX)/$(install) --force-reinstall .
	rm -rf build/lib $(PREFIX)/share/deepfake-miner
	mkdir -p $(PREFIX)/share/deepfake-miner
	cp -R configs weights $(PREFIX)/share/deepfake-miner/
	rm -rf $(PREFIX)/share/deepfake-miner/weights/.[!.]*
	install -m 755 deploy/start.sh $(PREFIX)/bin/deepfake-miner-start

image:
	docker build --target cpu --tag deepfake-miner:cpu .

image-cuda:
	docker build --target cuda --tag deepfake-miner:cuda .

# The locks anew from pyproject.toml; pins stay unless told: make lock ARGS="--upgrade-package torch"
COMPILE = build/lock/bin/uv --no-config pip compile --quiet --python-version 3.11 --generate-hashes --strip-extras \
	--custom-compile-command "make lock" $(ARGS)
lock:
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.8
	$(COMPILE) --group build pyproject.toml --output-file requirements.lock
	$(COMPILE) --group build --all-extras --constraints requirements.lock pyproject.toml --output-file requirements-dev.lock
	$(COMPILE) --group conformance --output-file requirements-conformance.lock

demo: setup
	$(BIN)/deepfake-miner demo --out build/demo $(ARGS)

test: setup setup-conformance
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

check: lint types test

# Ten minutes of hostile bytes to every parser; findings under build/fuzz: make fuzz ARGS="--seconds 60 --seed 1"
fuzz: setup
	$(BIN)/python scripts/fuzz.py $(ARGS)

# Ten minutes at 70 % of the measured capacity, with attackers and without the chain for a while: make soak ARGS="--detector camo"
soak: setup
	$(BIN)/python scripts/soak.py $(ARGS)

# Fifty kills -9 while serving and while weights change: make chaos ARGS="--rounds 10 --seed 1"
chaos: setup
	$(BIN)/python scripts/chaos.py $(ARGS)

bench-serve: setup setup-conformance
	$(BIN)/python scripts/bench_serve.py $(ARGS)

# Our miner and a 10.5 Axon under the same attacks; a table, and build/attacks.json: make attacks ARGS=--quick
attacks: setup setup-conformance
	$(BIN)/python scripts/attacks.py $(ARGS)

bench-camo: setup
	$(BIN)/python scripts/bench_camo.py $(ARGS)

# Weights that change under load: requests that fail, answers of two sets, latency during a swap: make bench-swap
bench-swap: setup
	$(BIN)/python scripts/bench_swap.py $(ARGS)

# What a candidate that sees live traffic costs live traffic: make bench-shadow
bench-shadow: setup
	$(BIN)/python scripts/bench_shadow.py $(ARGS)

# The console's pictures in docs, from a running miner in headless Chromium
console-screenshots: setup
	$(BIN)/python scripts/console_screenshots.py $(ARGS)

# The figures of docs/results, on the held-out groups of the pool: make results DATA=DIR
DATA ?= ../shared/data
results: setup
	$(BIN)/python scripts/leave_one_out.py --data $(DATA) --views 1 --most 150 --out docs/results/leave-one-out.json
	$(BIN)/python scripts/results.py --data $(DATA) $(ARGS)

# The default set from nothing, compared with docs/results: make reproduce DATA=DIR
reproduce: setup
	$(BIN)/python scripts/reproduce.py --data $(DATA) $(ARGS)

clean:
	rm -rf build .mypy_cache .ruff_cache .pytest_cache
