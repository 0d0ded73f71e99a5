# `make demo` and `make test` are all that a new machine needs: python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
WORKERS ?= auto

.PHONY: help demo test test-wide test-random crash fuzz load soak lint format bench bench-push packages clean

help:
	@echo 'make demo         throwaway hosts on this machine and three real releases to them'
	@echo 'make test         the whole test suite, on real OpenSSH servers'
	@echo 'make test-wide    the same with all combinations of tools and settings'
	@echo 'make test-random  the same again, in another order'
	@echo 'make crash        kill a run at every point there is, and let many pushes meet; takes minutes'
	@echo 'make fuzz         17,000 inventories, 1,000 trees, and what hosts and workers could say; ten minutes'
	@echo 'make load         500 hosts behind one server, then the same with hosts that fail'
	@echo 'make soak         300 releases to 10 hosts, a fault in every third; half an hour'
	@echo 'make lint         ruff, mypy, and the direction of imports'
	@echo 'make format       let ruff format'
	@echo 'make bench        releases of many kinds against rsync, scp, clush, Ansible and others; takes an hour, draws docs/benchmarks.md'
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
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -p no:randomly $(PYTEST_ARGS)

test-wide: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_WIDE=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -p no:randomly $(PYTEST_ARGS)

test-random: $(VENV)/.installed-dev packages
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

crash: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_EVERY=1 DEPLOYCTL_TEST_ROUNDS=30 $(BIN)/python -m pytest -s \
	  tests/life/test_kill_sweep.py tests/life/test_two_pushes.py \
	  tests/faults/test_activation.py tests/faults/test_crash_matrix.py $(PYTEST_ARGS)

fuzz: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_FUZZ=50 $(BIN)/python -m pytest --timeout 3600 \
	  tests/inventory/test_fuzz.py tests/faults/test_fuzz.py $(PYTEST_ARGS)

load: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_HOSTS=500 $(BIN)/python -m pytest -s tests/faults/test_load.py $(PYTEST_ARGS)

soak: $(VENV)/.installed-dev packages
	DEPLOYCTL_TEST_RELEASES=300 $(BIN)/python -m pytest -s tests/faults/test_soak.py $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/test_imports.py

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev packages .bench/.installed
	$(BIN)/python -m benchmarks --write docs/benchmarks
	$(BIN)/python -m benchmarks.scale --write docs/benchmarks
	[ "$$(id -u)" != 0 ] || $(BIN)/python -m benchmarks.uplink --write docs/benchmarks
	.bench/bin/python benchmarks/plot.py docs/benchmarks/scale.json docs/benchmarks/scale.svg
	$(BIN)/python -m benchmarks.page docs/benchmarks docs/benchmarks.md

bench-push: $(VENV)/.installed-dev packages
	$(BIN)/python -m benchmarks.push_small_files

# What deployctl is measured against, in an environment of its own.
.bench/.installed: tools/need_peers.sh
	sh tools/need_peers.sh
	$(PYTHON) -m venv .bench
	.bench/bin/pip install -q ansible-core parallel-ssh fabric matplotlib
	@touch $@

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
