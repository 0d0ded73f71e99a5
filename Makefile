# `make demo` and `make test` are all a new machine needs: python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-random lint format bench clean sshd

$(VENV)/.made: pyproject.toml
	$(PYTHON) tools/make_venv.py $(VENV)
	touch $@

demo: $(VENV)/.made
	$(BIN)/deployctl demo

sshd:
	sh tools/need_sshd.sh

test: $(VENV)/.made sshd
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py

format: $(VENV)/.made
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.made sshd
	$(BIN)/python benchmarks/push_small_files.py

clean:
	rm -rf $(VENV) .make .pytest_cache .mypy_cache .ruff_cache
