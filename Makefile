# Two commands on a fresh machine with Python 3.11+, pip and make:  make demo,  make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UNFINISHED := $(VENV)/.unfinished

# A command on the PATH may belong to an interpreter that is not selected (pyenv): they are tried.
NEWER := python3.14 python3.13 python3.12
PYTHON_NEWEST ?= $(shell for p in $(NEWER); do $$p -c pass >/dev/null 2>&1 && echo $$p && break; done)

# What answers a developer in under 90 seconds: golden values, laws and structure.
QUICK := $(addprefix tests/,losses threats/test_threats.py attacks/test_pgd_golden.py \
  attacks/test_apgd_golden.py objectives/test_golden.py inputs test_settings.py test_structure.py)

# The part of the suite that a new release of JAX is most likely to break.
CORE := $(addprefix tests/,attacks bounds convolutions evaluation inputs losses mixing networks \
  objectives threats training twins test_structure.py) $(wildcard tests/test_cli*.py)

# An environment is made anew if its making was interrupted, or if its interpreter does not run, has
# another version than when it was made, or is not the one that PYTHON= names.
VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
PRESENT := $(shell $(BIN)/python $(VERSION) 2>/dev/null)
MADE := $(shell cat $(INSTALLED) 2>/dev/null)
WANTED := $(if $(filter file,$(origin PYTHON)),$(PRESENT),$(shell $(PYTHON) $(VERSION) 2>/dev/null))
ANEW := $(wildcard $(UNFINISHED))$(if $(filter $(PRESENT),$(WANTED)),$(filter-out $(PRESENT),$(MADE)),anew)

.PHONY: demo quick docs test test-slow test-core lint types test-newest test-newest-core newest anew clean

demo: $(INSTALLED)
	$(BIN)/jaxrobust tradeoff experiments/digits_demo.py

PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(INSTALLED) lint
	$(PYTEST) -m "not slow" $(QUICK)

test: $(INSTALLED) lint
	$(PYTEST) -m "not slow"

# What `make test` leaves out: long runs, several processes, every command of the README.
test-slow: $(INSTALLED)
	$(PYTEST) -m slow

test-core: $(INSTALLED) lint
	$(PYTEST) -m "not slow" $(CORE)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell

# Not a part of `make test`: the stubs come with NumPy and JAX, so their next release may find more.
types: $(INSTALLED)
	$(BIN)/mypy

# The site, in build/docs. Every warning is an error. NOTEBOOKS=off does not run the notebooks.
NOTEBOOKS ?= cache
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html -D nb_execution_mode=$(NOTEBOOKS) docs build/docs
	@echo build/docs/index.html

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@

# Both on the newest interpreter, with the newest JAX that installs there.
test-newest: newest
	$(MAKE) test test-slow types PYTHON=$(PYTHON_NEWEST) VENV=.venv-newest

test-newest-core: newest
	$(MAKE) test-core types PYTHON=$(PYTHON_NEWEST) VENV=.venv-newest

newest:
	@test -n "$(PYTHON_NEWEST)" || { echo "None of $(NEWER) can be run;" \
	  "name the interpreter: make test-newest PYTHON_NEWEST=/path/to/python" >&2; exit 2; }
	@echo $(PYTHON_NEWEST)

$(INSTALLED): pyproject.toml $(if $(ANEW),anew)
	@rm -f $@; touch $(UNFINISHED)
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@$(BIN)/python $(VERSION) >$@; rm $(UNFINISHED)

ANOTHER = Name another: make $(MAKECMDGOALS) PYTHON=$(or $(PYTHON_NEWEST),/path/to/python3.11)
anew:
	@version=$$($(PYTHON) $(VERSION) 2>&1) || \
	  { echo "$(PYTHON) cannot be run: $$(echo $$version | sed 's|[.]$$||'). $(ANOTHER)"; exit 2; } >&2; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxrobust needs Python 3.11 or newer; $(PYTHON) is $$version. $(ANOTHER)"; exit 2; } >&2
	@if [ -e $(VENV)/pyvenv.cfg ] || [ -e $(UNFINISHED) ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV); touch $(UNFINISHED)
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf .venv .venv-newest .cache runs build docs/reference docs/project
