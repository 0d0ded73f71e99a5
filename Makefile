# `make demo` and `make test` are all that a new machine needs: python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
WORKERS ?= auto

.PHONY: help demo test test-random crash lint format bench bench-push packages clean

help:
	@echo 'make demo         throwaway hosts on this machine and three real releases to them'
	@echo 'make test         the whole test suite, on real OpenSSH servers'
	@echo 'make test-random  the same again, in another order'
	@echo 'make crash        kill a run at every point there is, and let many pushes meet; takes minutes'
	@echo 'make lint         ruff, mypy, and the direction of imports'
	@echo 'make format       let ruff format'
	@echo 'make bench        releases of many kinds against rsync, scp, clush, Ansible and others; takes half an hour'
	@echo 'make bench-push   a push of 10,000 files against rsync and ssh; takes a minute'
	@echo 'make clean        remove what these made'

$(VENV)/.installed: pyproject.toml tools/make_venv.py
	$(PYTHON) tools/make_venv.py $(VENV)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml tools/make_venv.py
	$(PYTHON) tools/make_venv.py $(VENV) dev
	@touch $(VENV)/.installed $@

packages:
	@sh tools/need_packages.sh

demo: $(VENV)/.installed
	@$(BIN)/deployctl demo

test: $(VENV)/.installed-dev packages
	$(BIN)/python -m pytest -n $(WORKERS) -p no:randomly $(PYTEST_ARGS)

test-random: $(VENV)/.installed-dev packages
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

crash: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_EVERY=1 DEPLOYCTL_TEST_ROUNDS=30 $(BIN)/python -m pytest -s \
	  tests/life/test_kill_sweep.py tests/life/test_two_pushes.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/test_imports.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev packages .bench/.installed
	$(BIN)/python -m benchmarks --write benchmarks/results

bench-push: $(VENV)/.installed-dev packages
	$(BIN)/python -m benchmarks.push_small_files

# What deployctl is measured against, in an environment of its own.
.bench/.installed: tools/need_peers.sh
	sh tools/need_peers.sh
	$(PYTHON) -m venv .bench
	.bench/bin/pip install -q ansible-core parallel-ssh fabric
	@touch $@

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
