PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench clean

# Example programs on the default model, with the tree of what each asked of the engine.
demo: $(VENV)/installed
	$(BIN)/python examples/demo.py

# Everything that runs without a GPU.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -q --durations=10

# What a change must pass besides the tests.
check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The CPU benchmarks; each ends with one JSON line.
bench: $(VENV)/installed-test
	$(BIN)/python benchmarks/radix.py
	$(BIN)/python benchmarks/interpreter.py
	$(BIN)/python benchmarks/prefix_reuse.py
	$(BIN)/python benchmarks/throughput.py

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "sgrun needs Python 3.11 or later; run: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

# A stamp for each set of extras: installed anew only when pyproject.toml changes.
$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/installed

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/installed $(VENV)/installed-test
