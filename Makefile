# Every target makes ready what it needs (tools/setup) and may be run on a bare Debian or Ubuntu.
#   make demo              the main job on real QEMU, to look at
#   make test              checks, unit and contract tests, the quick end-to-end tests
#   make e2e               all end-to-end tests, with Node.js
#   make torture SECONDS=120 SEED=7  random commands and faults on real processes, then an audit; without SEED one is drawn
#   make bench SECONDS=60  what it costs, side by side
#   make simulate SECONDS=600  many seeds of the whole system in virtual time, under faults; or SEEDS=1:20001
#   make docs              the documentation, into docs/_build
#   make check             ruff, mypy, import-linter
#   make clean             remove all that the others made here

SECONDS ?= 60
SEED ?= 0
PYTEST = .venv/bin/python -m pytest -rs

.PHONY: demo test e2e torture bench simulate docs check setup clean

demo: setup
	@.venv/bin/python -m demo

test: check
	$(PYTEST) -m "not slow"

e2e:
	@tools/setup node
	$(PYTEST) tests/e2e
	$(PYTEST) tests/contract/test_libvirtd.py

torture: setup
	@.venv/bin/python -m tests.torture --seconds $(SECONDS) --seed $(SEED)

bench: setup
	@.venv/bin/python -m tests.bench --seconds $(SECONDS)

simulate: setup
	@.venv/bin/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS),--seconds $(SECONDS))

docs: setup
	.venv/bin/python -m sphinx -q -W --keep-going -b html docs docs/_build
	@echo "open docs/_build/index.html"

check: setup
	.venv/bin/ruff check .
	.venv/bin/mypy orchestrator workers tests demo docs
	.venv/bin/lint-imports --config tools/imports.ini --no-cache

setup:
	@tools/setup

clean:
	rm -rf .venv .containers .demo .corpus .torture .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist docs/_build docs/examples/node_modules tests/e2e/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
