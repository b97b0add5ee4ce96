# Everything works on a machine with git, make and Python only: each target sets up what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := $(VENV)/.bench-peers
SHARED ?= ../shared/data
# PyTorch without CUDA; where the page cannot be reached, pip takes what the index has.
TORCH_WHEELS ?= https://download.pytorch.org/whl/cpu/torch/
# 3.11 is pinned to the oldest JAX we support, everything newer to the newest.
PIN := $(shell $(PYTHON) -c 'import sys; print("py311" if sys.version_info[:2] == (3, 11) else "py312")')
# Neighbouring tests share programs: each worker takes half and, once done, from the end of the other.
PYTEST ?= $(BIN)/python -m pytest -q -n 2 --dist worksteal
# What Google Colab runs.
COLAB_PYTHON ?= python3.12

.PHONY: install demo test lint types bench bench-curvature bench-peers notebooks soak fuzz colab clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints/$(PIN).txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fishjax needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints/$(PIN).txt $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: install
	$(BIN)/fishjax demo --out runs/demo

test: install
	$(PYTEST)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/pyright

bench: install
	$(BIN)/python -m experiments.bench.norms --out experiments/bench/results
	$(BIN)/python -m experiments.bench.sweep --out experiments/bench/results

bench-curvature: install
	$(BIN)/python -m experiments.bench.curvature --out experiments/bench/results
	$(BIN)/python -m experiments.bench.track --out experiments/bench/results

$(PEERS): $(STAMP) constraints/bench-peers.txt
	PIP_CONSTRAINT="constraints/$(PIN).txt constraints/bench-peers.txt" $(BIN)/pip install --quiet --disable-pip-version-check --find-links $(TORCH_WHEELS) -e '.[bench-peers]'
	touch $@

bench-peers: $(PEERS)
	$(BIN)/python -m experiments.bench.peers --out experiments/bench/results
	$(BIN)/python -m experiments.bench.throughput --out experiments/bench/results
	$(BIN)/python -m experiments.bench.throughput --task commonsenseqa --questions 48 \
	  --data $(SHARED)/commonsenseqa/dev_rand_split.jsonl --out experiments/bench/results

notebooks: install
	$(BIN)/python -m experiments.run_notebooks notebooks

soak: install
	$(BIN)/python -m experiments.soak --out experiments/results

fuzz: install
	FUZZ_CASES=2000 $(PYTEST) tests/fuzz

colab: install
	$(BIN)/python -m experiments.colab_install --python $(COLAB_PYTHON) --out experiments/results

clean:
	rm -rf $(VENV) runs build dist .pytest_cache .ruff_cache
