# Two commands do it all: `make demo` and `make test`. Everything else is in `make help`.
SHELL := /bin/bash
PYTHON ?= python3
ENGINE ?= cpu
TUTOR ?= qwen2.5-coder-1.5b-cart_pole
SEED ?= 0
BIN := .venv/bin
QUICK_TIER := $(BIN)/python -m pytest tests/unit -p no:schemathesis --numprocesses logical --maxprocesses 4
OTHER_TIERS := $(BIN)/python -m pytest tests/integration tests/e2e --numprocesses logical --maxprocesses 2 --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-unit test-pythons drill lint format pins ui clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo
	@echo "  ENGINE=gpu|none      vLLM's CUDA build in place of the CPU one, or no vLLM at all (endpoints, scripted tutors)"
	@echo "  TUTOR=NAME|FILE      tutor of the demo, by catalog name or YAML file (smollm2: least to fetch, and no help)"
	@echo "  PYTHON=python3.12    interpreter that the virtual environment is made from (3.11, 3.12 or 3.13)"

setup:  ## Create .venv with pinned packages and prepare the embedded tutor (safe to repeat)
	@$(PYTHON) tools/bootstrap.py --engine $(ENGINE)

demo: setup  ## Run the demo sweep: a real LLM tutors DQN, PPO and A2C on CartPole
	@exec $(BIN)/tutor sweep demo --set 'tutors=[$(TUTOR),oracle]'

test: setup  ## Run every test, the real LLM's included
	@$(QUICK_TIER)
	@exec $(OTHER_TIERS)

test-unit: setup  ## Run the quick tier: no Ray, no LLM
	@exec $(QUICK_TIER)

test-pythons: setup  ## Run the quick tier under the other Pythons that are installed, in environments of their own
	@exec $(BIN)/python -m tools.pythons

drill: setup  ## Strike a running sweep with every kind of fault and check that nothing is lost (minutes; seeded)
	@exec $(BIN)/python -m benchmarks.fault_drill --seed $(SEED)

lint: setup  ## Check style, types and which package imports which
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup  ## Rewrite the code in the house style
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

pins: setup  ## Propose newer pins and run the quick tier on them, in an environment of their own
	@exec $(BIN)/python -m tools.pins --try

ui: setup  ## Open the MLflow UI over runs/
	@exec $(BIN)/tutor ui

clean:  ## Remove what was built here (keeps runs/ and the advice that tutors gave)
	rm -rf .venv .venv.lock .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
