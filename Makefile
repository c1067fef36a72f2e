PYTHON ?= python3
VENV   ?= .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check --quiet
RUN    := $(VENV)/.run.stamp
DEV    := $(VENV)/.dev.stamp
PYTEST_ARGS ?=
WORKERS ?= 3
# Each process takes whole files, has an embedded set of its own, and one thread. On two cores a third one computes
# while others wait for servers.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations 20

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench chaos docs sbom clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "leukoflow needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

$(RUN): $(PY) requirements.lock pyproject.toml
	@echo "installing leukoflow into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --editable .
	@touch $@

# Lock files are made by `uv pip compile --universal --generate-hashes`, with the extras dev, docs and train for this one.
# torch has lock files of its own. The first names its CPU build, 190 MB, for machines whose pip finds one; the
# second names PyPI's own build with the CUDA libraries it insists on, some gigabytes: slow, and right as well.
$(DEV): $(RUN) requirements-dev.lock requirements-train.lock requirements-train-pypi.lock
	@echo "installing the development tools into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock -r requirements-train.lock \
	  || { echo "no CPU build of torch here; installing PyPI's, which is large ..."; \
	       $(PIP) install --require-hashes -r requirements-dev.lock -r requirements-train-pypi.lock; }
	@touch $@

demo: $(RUN)  ## scans into the bucket, differentials out; SCANS=dir for your own
	@$(VENV)/bin/leukoflow demo $(if $(SCANS),--scans "$(SCANS)")

test: $(DEV)  ## all but the long tests, on embedded servers; WORKERS=n for other than 3 processes
	@$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-all: $(DEV)  ## every test: with chaos, the upgrade from the release before, and the long ones
	@$(PYTEST) $(PYTEST_ARGS)

check: $(DEV)  ## ruff, mypy --strict, import-linter, bandit
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --cache-dir build/import-linter
	@$(PY) -m bandit --quiet --configfile pyproject.toml --recursive worker db pipeline

bench: $(DEV)  ## how fast, in one run; writes build/bench.json; PARTS="peak memory" for some of it
	@$(PY) -m tests.bench $(PARTS)

chaos: $(DEV)  ## kill everything while scans come, and count; writes build/chaos.json
	@$(PY) -m tests.chaos $(ARGS)

docs: $(DEV)  ## the pages of docs/ and the API reference as a site, in build/docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet
	@echo "build/docs/index.html; with search: $(PY) -m http.server --directory build/docs"

sbom: $(DEV)  ## what leukoflow is made of, by CycloneDX; writes build/sbom.json
	@mkdir -p build
	@$(VENV)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
	  --output-file build/sbom.json requirements.lock

clean:  ## remove what the targets made
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache
