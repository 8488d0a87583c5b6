# `make demo` and `make test` need only Python 3.11+ and make: they set up what they use.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test gpu docs format clean

demo: .venv/installed
	$(BIN)/luce train digits --overwrite
	$(BIN)/luce evaluate runs/digits digits

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadgroup

# What `make test` interprets, on the GPU that is here, and what only a GPU can show; then how fast,
# whatever the tests said. With a Python that has PyTorch for it: make gpu GPU_PYTHON=python3
GPU_PYTHON ?= $(BIN)/python
# What needs no GPU, and takes minutes, stays away.
GPU_TESTS := tests/kernels tests/conformance tests/linear tests/neural tests/test_graphs.py \
	--ignore=tests/kernels/cuda/test_ahead.py
MINUTES ?= 5
gpu: $(if $(filter $(BIN)/%,$(GPU_PYTHON)),.venv/installed-test)
	$(GPU_PYTHON) -m pytest -n auto --maxprocesses 8 -k cuda $(GPU_TESTS); tests=$$?; \
	PYTHONPATH=src $(GPU_PYTHON) -m benchmarks cuda --minutes $(MINUTES) && exit $$tests

docs: .venv/installed-docs
	$(BIN)/zensical build --strict --clean

format: .venv/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist site .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

.venv/installed-test: .venv/installed
	$(PIP) --editable '.[test]'
	touch $@

.venv/installed-docs: .venv/installed
	$(PIP) --editable '.[docs]'
	touch $@
