# The doors of this repository; `make` alone lists them. All work is done elsewhere: requirements/setup.sh, `elle`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast notebooks lab pod lint audit docs screenshots soak lock clean

# The trainer's launchers call torchrun and accelerate by name.
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is needed into .venv and .venv-server (minutes; a second when nothing changed)
	@requirements/setup.sh

demo: setup ## the whole path on this machine: data, training, evaluation, serving, report
	.venv/bin/elle run nano --run-id lab # the run that notebooks opened by hand belong to

# Two tests at once, a file's in one process: more of the real ones would want more than a laptop's memory.
PYTEST := .venv/bin/python -m pytest -n 2 --dist loadfile

test: setup ## every test: the fast ones, then those with the real trainer, server, browser and Prometheus
	@status=0; $(PYTEST) -m "not real" || status=1; $(PYTEST) -m real --no-loadscope-reorder || status=1; exit $$status

test-fast: setup ## the tests that take seconds
	$(PYTEST) -m "not real"

notebooks: setup ## run all notebooks; keep their outputs in notebooks/ and their figures in the pages, to commit them
	.venv/bin/elle run course --run-id lab && .venv/bin/elle publish lab && .venv/bin/python docs/refresh.py

lab: setup ## JupyterLab, at the first notebook
	.venv/bin/jupyter lab notebooks/00_start_here.ipynb

pod: ## set up a rented GPU machine: checks it, keeps models and runs on ELLE_VOLUME (/workspace/data)
	@requirements/setup.sh pod

lint: setup ## style
	.venv/bin/ruff check
	.venv/bin/ruff format --check

audit: setup ## look for published faults of the locked packages (NOT RUN where their data base is out of reach)
	.venv/bin/python requirements/audit.py $(ARGS)

docs: setup ## put the planner's and the published run's figures into the pages (README.md, docs/)
	.venv/bin/python docs/refresh.py

RUN := lab
screenshots: setup ## take the pictures of README.md anew, in a browser, from a finished run (RUN=lab)
	PYTHONPATH=tests .venv/bin/python docs/screenshots.py $(RUN)

soak: setup ## long trials of runs, serving, renting and judging, with faults (hours); writes docs/soak.md
	.venv/bin/python benchmarks/soak.py

lock: ## resolve requirements/*.in anew and install it, keeping what is pinned (ARGS=--upgrade: the newest of all)
	@requirements/setup.sh lock $(ARGS)
	@$(MAKE) --no-print-directory setup
	.venv/bin/python requirements/axolotl_keys.py # the names and types of the locked Axolotl's keys

clean: ## remove caches; runs, data and environments stay
	find $(wildcard src tests notebooks benchmarks) -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
	rm -rf .pytest_cache .ruff_cache .hypothesis build last_run_prepared
