# make demo    set up and run the main job on the embedded base (no network but the package index)
# make test    the tests that need nothing outside the clone
VENV   := .venv
PY     := $(VENV)/bin/python
PYTHON ?= python3
# A package index with CPU builds of torch (pytorch.org, Get Started): make demo TORCH_INDEX="--index-url URL"
TORCH_INDEX ?=

.PHONY: demo test test-slow test-gpu check bench bench-start bench-data bench-recipes bench-registry bench-train bench-targets bench-generate bench-generate-gpu bench-switch clean

$(VENV)/ready: setup.cfg constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check $(TORCH_INDEX) torch==2.13.0 -c constraints.txt
	$(PY) -m pip install -q --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $@

demo: $(VENV)/ready
	$(VENV)/bin/adapterkit demo

test: $(VENV)/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile -m "not slow and not gpu"

test-slow: $(VENV)/ready
	$(PY) -m pytest -m "slow and not gpu"

test-gpu: $(VENV)/ready
	$(PY) -m pytest -m gpu

check: $(VENV)/ready
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: bench-start bench-data bench-recipes bench-registry bench-train bench-targets bench-generate bench-switch

bench-start: $(VENV)/ready
	$(PY) benchmarks/start.py

bench-data: $(VENV)/ready
	$(PY) benchmarks/data.py

bench-recipes: $(VENV)/ready
	$(PY) benchmarks/recipes.py

bench-registry: $(VENV)/ready
	$(PY) benchmarks/registry.py

bench-train: $(VENV)/ready
	$(PY) benchmarks/train.py

bench-targets: $(VENV)/ready
	$(PY) benchmarks/targets.py

bench-generate-gpu: $(VENV)/ready
	$(PY) benchmarks/generate_gpu.py

bench-generate: $(VENV)/ready
	$(PY) benchmarks/generate.py

bench-switch: $(VENV)/ready
	$(PY) benchmarks/switch.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache build *.egg-info
