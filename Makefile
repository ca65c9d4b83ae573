# make help lists the targets. Everything is set up inside this folder, by tools/setup.sh.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH):/usr/sbin:/sbin
# without bytecode every Snakemake start costs two seconds more
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH VIRTUAL_ENV
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: help setup setup-test demo demo-stop test reliability soak audit lint format bench bench-quick clean distclean

help:  ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup:  ## install what straxflow needs, into .venv
	@tools/setup.sh demo

setup-test:
	@tools/setup.sh test

demo: setup  ## take some simulated runs through the whole workflow
	@python -m straxflow.lab.demo

demo-stop:  ## end the demo's run database and sshd
	@python -m straxflow.lab.demo --stop

test: setup-test lint  ## all checks and tests (PYTEST_ARGS="-k NAME" for some of them)
	@python -m pytest $(PYTEST_ARGS)

reliability: setup-test  ## everything that is broken on purpose, alone; writes docs/reliability.md
	@python -m pytest $(PYTEST_ARGS) --write-reliability

soak: setup-test  ## ten minutes of runs while everything is killed at random (SOAK_S=seconds SOAK_SEED=number)
	@SOAK_S=$${SOAK_S:-600} python -m pytest -q -s tests/soak

audit: setup  ## known vulnerabilities in the locked dependencies; ends with 2 if their source is out of reach
	@python tools/audit.py

lint: setup  ## ruff, mypy, snakefmt and snakemake --lint
	@ruff check --quiet .
	@ruff format --check --quiet . || { echo "make format puts this right"; exit 1; }
	@mypy --no-error-summary
	@snakefmt --check Snakefile workflow 2>/dev/null || { echo "make format puts this right"; exit 1; }
	@snakemake --lint

format: setup  ## put Python and Snakemake files into the project's format
	@ruff check --quiet --fix . ; ruff format --quiet .
	@snakefmt Snakefile workflow

bench: setup-test  ## speed against the plain tools, side by side
	@python -m bench

bench-quick: setup  ## the main ones with small data, in less than three minutes
	@python -m bench --quick transfer chain small_runs preview latency hashing compression

clean:  ## remove the caches of tests and linters
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find straxflow tests workflow tools bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean  ## remove the environments and downloads too
	@rm -rf .venv .venv-amstrax .tools .cache
