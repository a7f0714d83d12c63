# Everything that these targets need they set up themselves, in .venv: given are
# python3 with venv, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# How many tests run side by side (tests/conftest.py says which may not); they wait a lot.
WORKERS ?= $(shell echo $$(($$(nproc) + 1)))
PYTEST = -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --no-loadscope-reorder
# Which of them; all that there are, unless set.
TESTS ?=
# Else each program that the tests start, a thousand of them, compiles all of lazyarr anew.
unexport PYTHONDONTWRITEBYTECODE
FUZZ_SECONDS ?= 120
FUZZ_TARGETS = document_v3 document_v2 layout npy chunk shard_index shard message channel ledger reference answer

.PHONY: demo environment test test-unprivileged soak lint bench fuzz clean

demo: $(VENV)/.use
	$(BIN)/lazyarr demo

environment: $(VENV)/.develop

test: $(VENV)/.develop
	$(BIN)/python $(PYTEST) $(TESTS)

# Ten minutes of readers and writers while processes are killed, chunks damaged and stores fail.
soak: $(VENV)/.develop
	$(BIN)/python -m tests.process.soak --seconds 600

# What depends on rights, as nobody when this is root.
test-unprivileged: $(VENV)/.develop
	.ci/unprivileged $(BIN)/python $(PYTEST)

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks

fuzz: $(VENV)/.fuzz
	for target in $(FUZZ_TARGETS); do \
		$(BIN)/python -m tests.fuzz.atheris_run $$target --seconds $(FUZZ_SECONDS) || exit 1; \
	done

clean:
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.use: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.develop: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . --group dev
	$(BIN)/python -m pip install --quiet --no-binary uwsgi --group compiled || \
		echo "uWSGI could not be compiled: its tests are skipped" >&2
	touch $@

$(VENV)/.fuzz: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . --group fuzz
	touch $@

$(VENV)/.bench: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable . --group bench
	touch $@
