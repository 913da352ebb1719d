# Two commands: `make demo` trains the embedded model and writes runs/demo, `make test` runs the tests.
# Both make .venv and install the first time only.
#
# TORCH_SPEC and PIP_EXTRA_INDEX_URL choose the build of torch; see the README.
PYTHON ?= python3
VENV ?= .venv
TORCH_SPEC ?= $(shell grep '^torch==' constraints.txt)
BIN := $(VENV)/bin
# Keep the repository root off sys.path: its folders bear names that other packages have too.
export PYTHONSAFEPATH := 1

.PHONY: demo test install lint

demo: install
	$(BIN)/rlvr train --config examples/arithmetic.toml --overwrite

test: install
	$(BIN)/python -m pytest $(PYTEST_ARGS)

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH_SPEC)"
	grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --constraint $(VENV)/constraints.txt --editable ".[dev]"
	touch $@

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
