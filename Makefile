# Two commands on a fresh machine with Python 3.11+, pip and make:  make demo,  make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished

# A command on the PATH may belong to an interpreter that is not selected (pyenv): they are tried.
NEWER := python3.14 python3.13 python3.12
PYTHON_NEWEST ?= $(shell for p in $(NEWER); do $$p -c pass >/dev/null 2>&1 && echo $$p && break; done)

# The part of the suite that a new release of JAX is most likely to break.
CORE := $(addprefix tests/,attacks convolutions evaluation losses mixing objectives threats test_structure.py)

# An environment is made anew if its making was interrupted, if its interpreter does not run, or if
# it is not the one named by PYTHON=. Not named, PYTHON only makes environments.
version = $(shell $(1) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
PRESENT := $(call version,$(BIN)/python)
WANTED := $(if $(filter file,$(origin PYTHON)),$(PRESENT),$(call version,$(PYTHON)))
ANEW := $(wildcard $(UNFINISHED))$(if $(filter $(PRESENT),$(WANTED)),,anew)

.PHONY: demo test test-core lint test-newest test-newest-core newest anew clean

demo: $(INSTALLED)
	$(BIN)/jaxrobust tradeoff experiments/digits_tradeoff.py

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-core: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(CORE)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The same on the newest interpreter, with the newest JAX that installs there.
test-newest: newest
	$(MAKE) test PYTHON=$(PYTHON_NEWEST) VENV=.venv-newest

test-newest-core: newest
	$(MAKE) test-core PYTHON=$(PYTHON_NEWEST) VENV=.venv-newest

newest:
	@test -n "$(PYTHON_NEWEST)" || { echo "None of $(NEWER) can be run;" \
	  "name the interpreter: make test-newest PYTHON_NEWEST=/path/to/python" >&2; exit 2; }
	@echo $(PYTHON_NEWEST)

$(INSTALLED): pyproject.toml $(if $(ANEW),anew)
	@rm -f $@; touch $(UNFINISHED)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@rm $(UNFINISHED); touch $@

anew:
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) || \
	  { echo "$(PYTHON) cannot be run: $$(echo $$version)"; exit 2; } >&2; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxrobust needs Python 3.11 or newer; $(PYTHON) is $$version." \
	  "Name another: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 2; } >&2
	@if [ -e $(VENV)/pyvenv.cfg ] || [ -e $(UNFINISHED) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV); touch $(UNFINISHED)
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf .venv .venv-newest runs
