# Two commands on a fresh machine with Python 3.11+, pip and make:  make demo,  make test.
PYTHON ?= python3
PYTHON_NEWEST ?= python3.12
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint test-newest clean

demo: $(INSTALLED)
	$(BIN)/jaxrobust tradeoff experiments/digits_tradeoff.py

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The same suite on another interpreter, with the newest JAX that installs there.
test-newest:
	$(MAKE) test PYTHON=$(PYTHON_NEWEST) VENV=.venv-newest

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxrobust needs Python 3.11 or newer; $(PYTHON) is older: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

clean:
	rm -rf .venv .venv-newest runs
