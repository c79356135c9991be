# Everything a person needs: each target makes .venv and installs the package by itself.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.fcot-vl-installed
EVAL   ?= .venv-eval

# The seed of the tests' order: printed by every run; `make test SEED=7` repeats that of a run.
SEED   ?= $(shell date +%s)
PYTEST  = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal \
          --random-order --random-order-seed=$(SEED)
# Of a processor without AVX-512, which rounds sums differently; variables that a processor does not know do nothing.
AVX2    = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 OPENBLAS_CORETYPE=Haswell \
          NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL AVX512_SPR"

.PHONY: help demo reproduce test test-fast test-bare test-avx2 lint docs eval-env
help:            ## this list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 14

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $(READY)

demo: $(READY)       ## train and judge two students in minutes; report in runs/demo/report
	$(BIN)/fcot-vl demo

reproduce: $(READY)  ## three seeds, all baselines and controls (hours; resumable); report in runs/reproduce/report
	$(BIN)/fcot-vl reproduce

test: $(READY)       ## all tests, in random order
	$(PYTEST)

test-fast: $(READY)  ## the tests that are neither `slow` nor `faults`, in under a minute
	$(PYTEST) -m 'not slow and not faults'

test-bare: $(READY)  ## all tests, with the system's fonts and browsers hidden
	tests/bare env $(PYTEST)

test-avx2: $(READY)  ## all tests, without AVX-512
	$(AVX2) $(PYTEST)

lint: $(READY)       ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)       ## write docs/cli.md from the command line's own help
	$(BIN)/python -m typer fcot_vl.cli.app utils docs --name fcot-vl --output docs/cli.md

eval-env: $(EVAL)/.fcot-vl-installed  ## lmms-eval in an environment of its own, .venv-eval (docs/stages/lmms-eval.md)

$(EVAL)/.fcot-vl-installed: pyproject.toml constraints-eval.txt
	test -x $(EVAL)/bin/python || $(PYTHON) -m venv $(EVAL)
	$(EVAL)/bin/python -m pip install -c constraints-eval.txt -e '.[eval,test]'
	$(EVAL)/bin/python -m pip install -c constraints-eval.txt --no-deps lmms-eval
	touch $@
