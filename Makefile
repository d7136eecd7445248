# make demo   measure the EMM of handwritten digits, end to end
# make test   all tests that need no GPU        make test-gpu   those that do
# make test-slurm   the workflow on a SLURM that the tests start: needs root and Debian's packages
# make bench  what is meant to be fast against what one would take instead, with targets
# make bench-gpu    the same on an NVIDIA GPU
# make lint   ruff, snakefmt, snakemake --lint  make setup      only install
#
# Each target makes its own set-up in .venv. PYTHON chooses the interpreter (3.11 or newer).
# TORCH_INDEX adds a package index for torch: https://download.pytorch.org/whl/cpu has builds
# without CUDA, which are ten times smaller. CUDA=13 adds CuPy and pins CUDA, for an NVIDIA GPU with
# driver 580 or newer; CUDA=12 needs a TORCH_INDEX with builds for it, such as .../whl/cu126.
PYTHON ?= python3
TORCH_INDEX ?=
CUDA =
CONSTRAINTS := envs/constraints-$(if $(filter 13,$(CUDA)),cuda,cpu).txt
READY := .venv/ready$(CUDA)
GPUS := $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# pip compiles what it installs one file after the other, which takes half of its time.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile

.PHONY: demo setup test test-gpu test-slurm bench bench-gpu lint format schemas gallery clean

demo: $(READY)
	snakemake --profile profiles/local --quiet rules --resources gpu=$(GPUS)
	@emm summary

setup: $(READY)

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --constraint $(CONSTRAINTS) torch
ifneq ($(CUDA),)
	$(BIN)/python -c 'import sys, torch; found = torch.version.cuda; sys.exit(str(found).split(".")[0] != "$(CUDA)" and f"torch is built for CUDA {found}: make clean, and see the head of the Makefile")'
endif
	$(PIP) --constraint $(CONSTRAINTS) --editable '.[dev$(CUDA:%=,cuda%)]'
	-$(BIN)/python -m compileall -qq -j 0 .venv/lib
	touch $@

test: $(READY)
	pytest -m 'not gpu and not slurm'

test-gpu: $(READY)
	pytest -m gpu

test-slurm: $(READY)
	pytest -m slurm tests/slurm

bench bench-gpu: $(READY)
	python -c 'import faiss' 2>/dev/null || $(PIP) --constraint $(CONSTRAINTS) --editable '.[bench]'
	python benchmarks/bench.py --device $(if $(filter %-gpu,$@),cuda,cpu)

lint: $(READY)
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

format: $(READY)
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow/rules

schemas: $(READY)
	emm schema --folder schemas

gallery: $(READY)
	emm gallery --experiments all --title 'All figures at the quick scale' \
	  --output docs/figures.md --pictures docs/images/figures

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .snakemake
