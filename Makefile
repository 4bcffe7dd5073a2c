# make run: train and evaluate on embedded data.  make test: the whole test suite.  make soak KILLS=100: kill and resume.
# PYTHON= and VENV= can be overridden: make run PYTHON=python3.12 VENV=/tmp/venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: run test lint soak clean

run: $(VENV)/.installed
	$(BIN)/python main.py --phase all --resume
	$(BIN)/python main_eval.py
	@echo "results: runs/digits (weights and metrics), runs/digits/eval/report.html (the report)"

test: $(VENV)/.installed-dev  # a process a core, over 1 GB each; a file's tests stay together and share its fixtures
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

KILLS ?= 100
soak: $(VENV)/.installed-dev
	$(BIN)/python -m tests.faults.soak --kills $(KILLS)

clean:
	rm -rf runs/digits

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install -r requirements-dev.txt
	@touch $@
