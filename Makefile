# `make help` lists the verbs. Each works from a fresh clone with Python >= 3.11; lock needs uv too.
# PYTHON is the interpreter that .venv is made with; where another made it, make says so.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST_ARGS ?=
UP_ARGS ?=
EXTRAS ?=
space := $(subst ,, )
comma := ,
CHOSEN := $(sort $(subst $(comma), ,$(EXTRAS)))

.PHONY: run help test check bench clients open-webui format docs lock clean

run: $(VENV)/.run $(if $(CHOSEN),$(VENV)/.extras-$(subst $(space),-,$(CHOSEN)))
	@exec $(BIN)/freehold up $(UP_ARGS)

help:
	@echo "make run     install, fetch a starter model, answer a question, serve (UP_ARGS='--port 8500')"
	@echo "         EXTRAS='sign convert' installs these extras too, as the lock has them"
	@echo "make test    install what tests need, and run them (PYTEST_ARGS='-k chat')"
	@echo "make check   format, lint, types, import contracts, stale reference"
	@echo "make bench   measure, and write bench/RESULTS.md"
	@echo "make format  put code into its form"
	@echo "make docs    write docs/reference from the code"
	@echo "make lock    write the lock files (needs uv)"
	@echo "make clean   remove .venv and caches; models and keys stay in the home directory"
	@echo "PYTHON=/path/to/python3.11 chooses the interpreter of a new .venv"

test: $(VENV)/.dev
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

bench: $(VENV)/.dev
	$(BIN)/python -m bench.run

# Programs of others against a running Freehold; needs npm, and a network once.
clients: $(VENV)/.dev
	$(BIN)/python -m tests.clients.run

# The same for Open WebUI in a real browser; needs Chromium with its driver, and 3 GB.
open-webui: $(VENV)/.dev
	$(BIN)/python -m tests.clients.open_webui

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.dev
	$(BIN)/python -m docs.generate

# Needs uv; writes the two lock files with hashes for every platform we support.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group build pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --group build --group dev pyproject.toml -o requirements-dev.lock

ifeq ($(origin PYTHON):$(filter clean help,$(MAKECMDGOALS)),command line:)
ifneq ($(wildcard $(VENV)/.venv),)
ifneq ($(shell $(PYTHON) -c 'import sys; print(sys.version_info[:2], sys.base_prefix)'),$(shell $(BIN)/python -c 'import sys; print(sys.version_info[:2], sys.base_prefix)'))
$(error $(VENV) was made with another Python than $(PYTHON): make clean first, or leave PYTHON out)
endif
endif
endif

$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Freehold needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 run")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.venv requirements.lock pyproject.toml
	@echo "Installing Freehold into $(VENV) ..." >&2
	@$(PIP) --require-hashes --only-binary :all: -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# Extras are in the lock of the tests; pip takes no constraints with hashes for what has none.
$(VENV)/.extras-%: $(VENV)/.run requirements-dev.lock
	@sed -e '/--hash/d' -e 's/ *\\$$//' requirements-dev.lock > $(VENV)/constraints.txt
	@$(PIP) --no-build-isolation --constraint $(VENV)/constraints.txt -e '.[$(subst $(space),$(comma),$(CHOSEN))]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	@$(PIP) --require-hashes --only-binary :all: -r requirements-dev.lock
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
