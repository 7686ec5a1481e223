# Plain `make` lists the targets. Each one that needs packages first makes or updates .venv;
# PYTHON=/path/to/python3.10 chooses the interpreter of a new .venv.

.PHONY: help setup setup-dev demo test lint format benchmark check-env check-gpu audit clean
.NOTPARALLEL: # two targets must not install into .venv at once

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

setup: ## make .venv: MegEngine and the other pinned packages (1 GB to download, 2.3 GB on the disk)
	@bash tools/setup_env.sh

setup-dev:
	@bash tools/setup_env.sh --dev

demo: setup ## see it work on the CPU
	.venv/bin/python tools/demo.py

test: setup-dev ## run the tests, one worker per core
	.venv/bin/python -m pytest -n auto --maxprocesses 8

lint: setup-dev ## check style, format and types
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

format: setup-dev ## rewrite files in the project's format
	.venv/bin/python -m ruff check --fix --exit-zero --quiet .
	.venv/bin/python -m ruff format .

# Environments that are not given are made: MEGENGINE_PYTHON=... and TORCH_PYTHON=... name others.
MEGENGINE_PYTHON ?= .venv/bin/python
TORCH_PYTHON ?= .venv-torch/bin/python
RUNTIMES_PYTHON ?= .venv-runtimes/bin/python
RUNTIMES = --torch-python $(TORCH_PYTHON) --runtimes-python $(RUNTIMES_PYTHON)
BENCHMARK = --torch-python $(TORCH_PYTHON) $(if $(PHOTOS),--photos $(PHOTOS)) $(BENCHMARK_FLAGS)

benchmark: ## compare the CPU speed with other frameworks' (30 to 45 minutes)
ifeq ($(origin MEGENGINE_PYTHON),file)
	@bash tools/setup_env.sh
endif
ifeq ($(origin TORCH_PYTHON),file)
	@bash benchmarks/setup_peers.sh torch
endif
ifeq ($(origin RUNTIMES_PYTHON),file)
	@bash benchmarks/setup_peers.sh runtimes
endif
	$(MEGENGINE_PYTHON) benchmarks/compare.py $(BENCHMARK)
	$(MEGENGINE_PYTHON) benchmarks/runtimes.py $(RUNTIMES)
	$(MEGENGINE_PYTHON) benchmarks/runtimes.py --arch resnet50 --precision fp32 --busy $(RUNTIMES)

check-env: ## tell what this machine has for the project, and what is missing
	@$(firstword $(wildcard .venv/bin/python) python3) tools/check_env.py

check-gpu: ## compare this machine's GPUs with its CPU, and measure them (8 minutes at most)
	@$(firstword $(wildcard .venv/bin/python) python3) tools/check_gpu.py

audit: setup ## ask PyPI which installed packages have published weaknesses (pip-audit, on request)
	@[ -x .venv-audit/bin/pip-audit ] || { .venv/bin/python -m venv .venv-audit && \
	  .venv-audit/bin/python -m pip --disable-pip-version-check install --quiet pip-audit; }
	.venv-audit/bin/pip-audit --path "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

clean: ## delete caches (.venv and the results of training stay)
	rm -rf .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
