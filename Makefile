# The front door. `make demo` and `make test` need Python 3.11 or newer and make, and nothing else:
# they lay out .venv, install into it (with uv where it is on PATH, else with pip), and run.
# A second call installs nothing unless pyproject.toml or constraints.txt changed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

PY := .venv/bin/python
DEMO_READY := .venv/.installed-demo
DEV_READY := .venv/.installed-dev
BENCH_READY := .venv/.installed-bench
AUTOBAHN_READY := .venv-autobahn/.installed

# ARGS goes to whatever the target runs (make test ARGS="-k hub -x"), PORT to the demo (make demo PORT=9000).
ARGS ?=

.PHONY: help
help: ## print this list
	@echo "Tidewire: the targets of this Makefile"
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

# ---------------------------------------------------------------- run it

.PHONY: demo
demo: $(DEMO_READY) ## install what the demo needs and run it (PORT=9000 for another port); Ctrl-C ends it
	@trap : INT; $(PY) -m examples.demo $(if $(PORT),--port $(PORT)) $(ARGS) || { code=$$?; test $$code -eq 130 || exit $$code; }

.PHONY: install
install: $(DEV_READY) ## lay out .venv with everything that development needs

# ---------------------------------------------------------------- prove it

.PHONY: test
test: $(DEV_READY) ## run the quick tests: Python alone, about a minute (ARGS="-n 0" in one process)
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not system and not interop" --ignore=tests/system --ignore=tests/interop $(ARGS)

.PHONY: test-system
test-system: $(DEV_READY) ## run the system tests: a real Chromium, curl and Node
	@sh scripts/need-tools.sh
	$(PY) -m pytest -m system $(ARGS)

.PHONY: interop
interop: $(DEV_READY) ## run other people's clients, servers and judges with ours: Python, Node with npm, Chromium
	$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal -m interop tests/interop $(ARGS)

.PHONY: histories
histories: $(DEV_READY) ## live through 10,000 random histories of sessions, and find ten faults put in on purpose
	HISTORIES=10000 $(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal tests/property/test_sessions.py tests/property/test_session_faults.py $(ARGS)

.PHONY: conformance conformance-full
conformance: $(DEV_READY) $(AUTOBAHN_READY) ## run 329 cases of the Autobahn Testsuite against both sides: Python 2.7 for the suite, a C compiler
	$(PY) -m conformance $(ARGS)

conformance-full: $(DEV_READY) $(AUTOBAHN_READY) ## run all 517 cases, every one with compression too: takes long
	$(PY) -m conformance --full $(ARGS)

.PHONY: check check-lint check-format check-types check-imports
check: check-lint check-format check-types check-imports ## lint, format, strict types and import contracts (-k: all, even after a failure)

check-lint: $(DEV_READY)
	$(PY) -m ruff check .

check-format: $(DEV_READY)
	$(PY) -m ruff format --check .

check-types: $(DEV_READY)
	$(PY) -m mypy

check-imports: $(DEV_READY)
	.venv/bin/lint-imports --no-logo

.PHONY: bench bench-quick
bench: $(BENCH_READY) ## run every benchmark: Linux, a C compiler, Node, an hour; nothing else should run meanwhile
	$(PY) -m benchmarks.run all $(ARGS)

bench-quick: $(BENCH_READY) ## run every benchmark small: shows that they work, its numbers mean little
	$(PY) -m benchmarks.run all --quick $(ARGS)

# ---------------------------------------------------------------- keep it

.PHONY: format
format: $(DEV_READY) ## put the code into shape: ruff's safe fixes, then its format
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

.PHONY: docs-screenshots
docs-screenshots: $(DEV_READY) ## take the pictures under docs/ again, from the demo in a real Chromium
	@sh scripts/need-tools.sh chromium
	$(PY) -m examples.demo.screenshots

.PHONY: constraints
constraints: ## pin the newest versions that fit into constraints.txt (needs Python 3.11 and a network)
	@sh scripts/constraints.sh

.PHONY: clean
clean: ## remove .venv, caches and build results
	rm -rf .venv .venv-autobahn build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

# ---------------------------------------------------------------- installation, once

# A .venv that was copied along with its folder still runs the code of the old place: install again.
ifneq ($(shell cat .venv/.installed-for 2>/dev/null),$(CURDIR))
$(DEMO_READY) $(DEV_READY) $(BENCH_READY): elsewhere
endif
.PHONY: elsewhere
elsewhere:

$(DEMO_READY): pyproject.toml constraints.txt scripts/install.sh
	@sh scripts/install.sh demo

$(DEV_READY): pyproject.toml constraints.txt scripts/install.sh
	@sh scripts/install.sh dev

$(BENCH_READY): pyproject.toml constraints.txt scripts/install.sh
	@sh scripts/install.sh bench

# The Autobahn Testsuite, which needs a Python of its own (PYTHON27=/path/to/python2.7 says which).
$(AUTOBAHN_READY): conformance/requirements.txt conformance/requirements-virtualenv.txt scripts/autobahn.sh | $(DEV_READY)
	@sh scripts/autobahn.sh
