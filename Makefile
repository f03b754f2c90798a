# Everything happens inside the checkout: `make help` lists the chores.

PYTHON ?= python3
WORKERS ?= 3
BIN := .venv/bin
CONTRIB := $(filter-out contrib/skeleton/%,$(sort $(wildcard contrib/*/pyproject.toml)))
PIP := $(BIN)/pip --quiet --no-cache-dir --disable-pip-version-check

ifdef LONG
export DURABLE_TEST_LONG := 1
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check bench bench-peers bench-scale bench-docs format pins clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.demo  ## Run an order workflow, kill its worker, watch it go on (DEMO_ARGS=)
	@$(BIN)/durable demo $(DEMO_ARGS)

test: export PYTHONDONTWRITEBYTECODE :=  # thousands of processes would compile the package anew
test: .venv/.dev  ## Run the tests (PYTEST_ARGS=, WORKERS=3, LONG=1 for the long ones)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: .venv/.dev  ## Check format, lint, types and the import contract
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

bench: .venv/.dev  ## Measure ours, beside what bare programs reach (BENCH_ARGS=)
	@$(BIN)/python -m benchmarks run $(BENCH_ARGS)

bench-peers: .venv/.dev  ## Measure other frameworks as well (BENCH_ARGS=)
	@$(BIN)/python -m benchmarks run --peers $(BENCH_ARGS)

bench-scale: .venv/.dev  ## Measure how ours grows (BENCH_ARGS=)
	@$(BIN)/python -m benchmarks run scale --rounds 1 $(BENCH_ARGS)

bench-docs: .venv/.bench  ## Write the tables and plots of docs from what was kept of the last runs
	@$(BIN)/python -m benchmarks report

format: .venv/.dev  ## Format the code and fix what ruff can fix
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

pins:  ## Pin every package anew, at its newest release, in constraints.txt
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) install --upgrade pip
	$(PIP) install $(everything) --group bench async-timeout editables hatchling
	$(PIP) freeze --all --exclude-editable --exclude setuptools > constraints.txt

clean:  ## Remove the environment and every cache
	rm -rf .venv .brokers .peers .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache .tmp build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

everything := --editable '.[all]' $(patsubst %/pyproject.toml,--editable ./%,$(CONTRIB)) --group dev

define install
@echo "Setting up .venv"
@$(PYTHON) -m venv .venv
@$(PIP) install --constraint constraints.txt pip
@$(PIP) install --constraint constraints.txt --build-constraint constraints.txt $(1)
endef

.venv/.demo: pyproject.toml constraints.txt
	$(call install,--editable '.[cli]')
	@touch $@

.venv/.dev: pyproject.toml constraints.txt $(CONTRIB)
	$(call install,$(everything))
	@touch .venv/.demo $@

.venv/.bench: .venv/.dev
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@
