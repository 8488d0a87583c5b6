# `make demo` and `make test` need only Python 3.11+ and make: they set up what they use.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test gpu gpu-tests gpu-benchmarks docs format clean

demo: .venv/installed
	$(BIN)/luce train digits --overwrite
	$(BIN)/luce evaluate runs/digits digits

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadgroup

# On the GPU that is here, what `make test` interprets and what only a GPU can show; then how fast,
# whatever the tests said. Each alone: gpu-tests, gpu-benchmarks. With a Python that has PyTorch for
# it: make gpu GPU_PYTHON=python3. Results are copied to a folder: make gpu OUT=folder.
GPU_PYTHON ?= $(BIN)/python
# What needs no GPU, and takes minutes, stays away.
GPU_TESTS := tests/kernels tests/conformance tests/linear tests/neural tests/test_graphs.py \
	--ignore=tests/kernels/cuda/test_ahead.py
MINUTES ?= 5
GPU_NEEDS := $(if $(filter $(BIN)/%,$(GPU_PYTHON)),.venv/installed-test)
# Luce need not be installed for that Python, nor be found by processes that tests start.
ON_GPU := PYTHONPATH="$(CURDIR)/src$${PYTHONPATH:+:$$PYTHONPATH}" $(GPU_PYTHON) -m
gpu:
	$(MAKE) gpu-tests; tests=$$?; $(MAKE) gpu-benchmarks && exit $$tests

gpu-tests: $(GPU_NEEDS)
	$(ON_GPU) pytest -n auto --maxprocesses 8 -k cuda $(if $(OUT),--junitxml='$(OUT)/gpu-tests.xml') $(GPU_TESTS)

gpu-benchmarks: $(GPU_NEEDS)
	$(if $(OUT),OUT='$(OUT)') $(ON_GPU) benchmarks cuda --minutes $(MINUTES)

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
