# Two commands, each does all its set-up on a fresh Linux x86-64 machine with Python >= 3.11:
#   make demo    the whole recipe in miniature
#   make test    all tests that need no GPU and no network
PYTHON ?= python3
unexport PYTHONDONTWRITEBYTECODE  # where it is set, every start would compile for 20 s

.PHONY: help demo test check setup lock

help:
	@echo "make demo    the whole recipe in miniature, about 10 minutes on 2 cores; report in runs/demo"
	@echo "make test    all tests that need no GPU and no network, about 15 minutes"
	@echo "make check   the fast tests, about 2 minutes, and ruff"
	@echo "make setup   only the set-up that the three above do by themselves: .venv, about 3 minutes"
	@echo "make lock    regenerates requirements/cpu.txt and gpu.txt from pyproject.toml"
	@echo "Options: PYTHON=python3.12 (>= 3.11), VLLM_WHEEL=official-vllm-cpu.whl"

demo: setup
	.venv/bin/fastmath demo --out runs/demo

test: setup
	.venv/bin/python -m pytest -m "not gpu and not network" --durations=10

check: setup
	.venv/bin/python -m pytest -q -m "not slow and not gpu and not network"
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

setup:
	@command -v $(PYTHON) >/dev/null || { echo "Error: no $(PYTHON) found. Install Python 3.11 or newer, or name it: make demo PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) requirements/install.py

lock:
	$(PYTHON) requirements/lock.py
