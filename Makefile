# Small verbs. `make setup` is what the others use; nothing here needs more than Python 3.11 and a package index.
PYTHON ?= python3.11
VENV := .venv
CONFORMANCE := .venv-conformance
BIN := $(VENV)/bin
ARGS ?=

.PHONY: setup setup-conformance demo test lint types check fuzz soak chaos bench-serve attacks bench-camo results reproduce clean

setup: $(VENV)/.ready
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

setup-conformance: $(CONFORMANCE)/.ready
$(CONFORMANCE)/.ready: requirements-conformance.lock
	$(PYTHON) -m venv $(CONFORMANCE)
	$(CONFORMANCE)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-conformance.lock
	touch $@

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
