# make demo   measure the EMM of handwritten digits, end to end
# make test   all tests that need no GPU        make test-gpu   those that do
# make test-slurm   the workflow on a SLURM that the tests start: needs root and Debian's packages
# make lint   ruff, snakefmt, snakemake --lint  make setup      only install
#
# Each target makes its own set-up in .venv. PYTHON chooses the interpreter (3.11 or newer).
# TORCH_INDEX adds a package index for torch: https://download.pytorch.org/whl/cpu has builds
# without CUDA, which are ten times smaller.
PYTHON ?= python3
TORCH_INDEX ?=
GPUS := $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

.PHONY: demo setup test test-gpu test-slurm lint format schemas gallery clean

demo: .venv/ready
	snakemake --profile profiles/local --quiet rules --resources gpu=$(GPUS)
	@emm summary

setup: .venv/ready

.venv/ready: pyproject.toml envs/constraints-cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint envs/constraints-cpu.txt torch
	$(PIP) --constraint envs/constraints-cpu.txt --editable '.[dev]'
	touch $@

test: .venv/ready
	pytest -m 'not gpu and not slurm'

test-gpu: .venv/ready
	pytest -m gpu

test-slurm: .venv/ready
	pytest -m slurm

lint: .venv/ready
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

format: .venv/ready
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow/rules

schemas: .venv/ready
	emm schema --folder schemas

gallery: .venv/ready
	emm gallery --experiments all --title 'Both papers at the quick scale' \
	  --output docs/figures.md --pictures docs/images/figures

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .snakemake
