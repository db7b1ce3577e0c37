# `make quickstart` runs the main job; `make test` runs every test and check but the slow ones.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SECONDS ?= 1200

.PHONY: quickstart test test-all soak check docs wheel clean

quickstart: $(VENV)/.runtime
	@if [ -f results/quickstart/config.yaml ]; then \
		echo "results/quickstart is there: going on with it"; \
		$(BIN)/evonas resume results/quickstart; \
	else \
		$(BIN)/evonas run experiments/quickstart.yaml --out results/quickstart; \
	fi

test: check
	$(BIN)/pytest -m "not slow" -n auto --dist loadfile --no-loadscope-reorder  # long files first

test-all: check
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/soak.py --seconds $(SECONDS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/python docs/hooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

$(VENV)/.runtime: pyproject.toml constraints.txt
	@echo "installing into $(VENV): some minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@echo "installing into $(VENV): some minutes the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) dist site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
