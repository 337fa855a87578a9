# `make demo` and `make test` are the two commands to start with. The environment is created when it is missing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test docs results bench lint format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[dev,docs]'
	@touch $@

setup: $(STAMP)  ## create .venv and install musictf in it

demo: $(STAMP)  ## pretrain, probe, inspect and draw on synthetic music (ten to fifteen minutes on two cores); results in runs/demo
	$(BIN)/musictf demo

test: $(STAMP)  ## run the tests, on up to four cores at once
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

docs: $(STAMP)  ## build the documentation in docs/_build/html; warnings are errors, nothing is fetched
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

results: $(STAMP)  ## write the tables of README.md and docs/results.md from the committed rows
	$(BIN)/python experiments/update_tables.py

bench: $(STAMP)  ## measure speed and accuracy against plain implementations (long); results in experiments/benchmarks/results.csv
	$(BIN)/python experiments/benchmarks/run.py

lint: $(STAMP)  ## ruff, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment, the built documentation and caches (not runs/)
	rm -rf $(VENV) docs/_build .pytest_cache .mypy_cache .ruff_cache build dist
