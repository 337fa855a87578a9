# Everything starts here: `make demo`, `make test`. The environment is made when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test results bench lint format clean

help:  ## list what one can do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## make .venv and install musictf in it

demo: $(STAMP)  ## pretrain, probe, inspect and draw on synthetic music (ten to fifteen minutes on two cores); results in runs/demo
	$(BIN)/musictf demo

test: $(STAMP)  ## run the tests, on up to four cores at once
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

results: $(STAMP)  ## put the tables of the committed rows into README.md
	$(BIN)/python experiments/update_readme.py

bench: $(STAMP)  ## measure speed and accuracy against the plain ways (long); results in experiments/benchmarks/results.csv
	$(BIN)/python experiments/benchmarks/run.py

lint: $(STAMP)  ## ruff, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches (not runs/)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist
