# Everything is set up in .venv; python3 (3.11 or newer) and make are all that a machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?= studies/deepseek-v3-128xh200.toml
# predictions of runs that were left out of the fit, and what they say of its errors beside them
SPLITS ?= splits.csv
# bytecode is written once, not compiled anew by each of the processes that a command or a test starts
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help tune test cases lint docs pages bench refit torture fuzz properties installed audit bombs year engines engines-best \
  engines-build engines-diff lock clean
help:
	@echo "make tune    set up, then answer a study of DeepSeek-V3 (STUDY=path for another)"
	@echo "make test    set up, then run the tests"
	@echo "make cases   files that were read wrong once, right or wrong (CASES=folder; ../shared/cases if it is there)"
	@echo "make lint    formatter, linter, types, layers"
	@echo "make docs    the documentation as a site in site/; a dead link is an error"
	@echo "make pages   write anew the pages and pictures that are made from the code"
	@echo "make bench   speed of the model and of whole commands"
	@echo "make refit   every calibration file from MEASURED (a folder: kernels/, serving_runs.csv, disagg_runs.csv, load_runs.csv)"
	@echo "             and MODELS (config.json files), and what is made from them; half an hour"
	@echo "make torture faults by the hundred (kills, full disks, lost storage), counted; five minutes at most"
	@echo "make properties  statements that are true of every study, against 5,000 random ones; hours"
	@echo "make year    hourly re-tuning over a year on a fake clock, counted"
	@echo "make installed  a wheel in empty environments runs every command, without HOME and terminal, on each Python"
	@echo "make bombs   files made to take time and memory, measured, one command each"
	@echo "make audit   pinned dependencies against the advisories that PyPI publishes"
	@echo "make fuzz    every reader under atheris (coverage-guided), four minutes"
	@echo "make engines  what is exported, read by vLLM's and SGLang's own code in .engines (2 GB)"
	@echo "make engines-best  the best plans of 48 studies, held against the same code"
	@echo "make engines-build  every stage of six models built by the engines' own classes; writes tests/engines/verdicts"
	@echo "make engines-diff  options and defaults of the engines in .engines that differ from our lists (NEWER=vllm==VERSION)"
	@echo "make lock    pin the dependencies anew, with their hashes"
	@echo "make clean   remove .venv and caches"

tune: $(VENV)/.runtime
	@$(BIN)/autotune tune --table $(STUDY)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n auto --maxprocesses 8

cases: $(VENV)/.dev
	@$(BIN)/python -m tests.cases $(CASES)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pages: $(VENV)/.dev
	@$(BIN)/python -m tools.pages

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks.growth
	@$(BIN)/python -m benchmarks.simulation
	@$(BIN)/python -m benchmarks.planning

# in this order: pools are fitted on the servers' formulas, and the rest shows what both say
refit: $(VENV)/.dev
	@test -d "$(MEASURED)" -a -d "$(MODELS)" || { echo "give the folders as MEASURED=FOLDER MODELS=FOLDER"; exit 1; }
	$(BIN)/python -m tools.fit_calibration --tables $(MEASURED)/kernels --runs $(MEASURED)/serving_runs.csv --models $(MODELS) --splits $(SPLITS)
	$(BIN)/python -m tools.fit_calibration.pools $(MEASURED)/disagg_runs.csv --write
	$(BIN)/python -m benchmarks.accuracy $(MEASURED)/serving_runs.csv $(SPLITS) --models $(MODELS) --load $(MEASURED)/load_runs.csv | tee $(SPLITS:.csv=.txt)
	$(BIN)/python -m tests.golden
	$(BIN)/python -m tools.pages
	$(BIN)/python -m tests.cli.journeys

torture: $(VENV)/.dev
	@$(BIN)/python -m tests.torture

properties: $(VENV)/.dev
	@$(BIN)/python -m tests.properties

year: $(VENV)/.dev
	@$(BIN)/python -m tests.year

installed: $(VENV)/.dev
	@$(BIN)/python -m tests.installed

bombs: $(VENV)/.dev
	@$(BIN)/python -m tests.bombs

# alone, what cannot be looked up fails as well: no answer is no all-clear; CI also runs where PyPI cannot be reached
audit: STRICT ?= --strict
audit: $(VENV)/.dev
	@$(BIN)/python -m tools.audit $(STRICT)

fuzz: $(VENV)/.dev
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --only-binary :all: "atheris>=3,<4" || true
	@$(BIN)/python -m tests.fuzz

# CPU torch stands for the engines' own; what they compile for GPUs is stood in for and deleted. Its wheel comes from
# WHEELS (a folder) or where pip looks on this machine, else from PyTorch's index
ENGINES := .engines
ENGINES_TORCH := torch==2.13.0+cpu
ENGINES_INDEX ?= --extra-index-url https://download.pytorch.org/whl/cpu
ENGINES_PIP = $(ENGINES)/bin/python -m pip install -qq --disable-pip-version-check $(addprefix --find-links ,$(WHEELS))
engines: $(VENV)/.dev $(ENGINES)/.ready
	@$(BIN)/python -m tools.engines

engines-best: $(VENV)/.dev $(ENGINES)/.ready
	@$(BIN)/python -m tools.engines.best

engines-build: $(VENV)/.dev $(ENGINES)/.ready
	@$(BIN)/python -m tools.engines.build

# NEWER=vllm==0.34.0 sets that wheel up beside the ones in .engines; without it those are compared
engines-diff: $(VENV)/.dev $(ENGINES)/.ready
	@rm -rf $(ENGINES)/newer
	@test -z "$(NEWER)" || $(ENGINES)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --target $(ENGINES)/newer $(NEWER)
	@find $(ENGINES)/newer -path '*/vllm/*' -name '*.so' -delete 2>/dev/null || true
	@$(BIN)/python -m tools.engines.diff $(firstword $(subst ==, ,$(NEWER)))

$(ENGINES)/.ready: tools/engines/requirements.txt
	@echo "setting up $(ENGINES) (once, some minutes)"
	@$(PYTHON) -m venv $(ENGINES)
	@$(ENGINES_PIP) --no-deps $(ENGINES_TORCH) 2>/dev/null || \
	  $(ENGINES_PIP) --no-deps --retries 1 $(ENGINES_INDEX) $(ENGINES_TORCH) 2>/dev/null || \
	  { echo "no wheel of $(ENGINES_TORCH) for this Python could be had: give a folder that holds one as WHEELS=FOLDER, or another index as ENGINES_INDEX='--index-url URL'"; exit 1; }
	@$(ENGINES_PIP) --no-deps -r tools/engines/requirements.txt || \
	  { echo "a wheel of tools/engines/requirements.txt could not be had (above): give a folder that holds it as WHEELS=FOLDER"; exit 1; }
	@find $(ENGINES) -path '*/vllm/*' -name '*.so' -delete
	@touch $@

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "autotune needs python3 3.11 or newer, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements.lock pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q autotune costmodel
	@touch $@

$(VENV)/.dev: $(VENV)/.python requirements-dev.lock pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q autotune costmodel
	@touch $@ $(VENV)/.runtime

lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url --extra build --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header --no-emit-index-url --extra build --extra dev --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) $(ENGINES) site .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
