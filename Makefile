# Small verbs. `make setup` is what the others use; nothing here needs more than Python 3.11 and a package index.
PYTHON ?= python3.11
VENV := .venv
CONFORMANCE := .venv-conformance
BIN := $(VENV)/bin
ARGS ?=

.PHONY: setup setup-conformance demo test lint types check bench-serve bench-camo results reproduce clean

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

bench-serve: setup setup-conformance
	$(BIN)/python scripts/bench_serve.py $(ARGS)

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
