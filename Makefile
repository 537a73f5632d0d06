# Everything sets itself up: a virtual environment in .venv with the pinned requirements.

MODEL ?= house_prices
ARGS ?=
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
PIP = .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet
# Two at a time: most of a long test waits for processes of its own. A file's tests share what they set up, and the
# order is that of tests/conftest.py, which puts the long files first.
PYTEST = .venv/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
# What evergreen is measured against lives in environments of its own.
define PEERS
test -x $(@D)/bin/python || .venv/bin/python -m venv $(@D)
$(@D)/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes --requirement $(lastword $^)
touch $@
endef

.PHONY: run up serve ui test test-all test-slow lint format bench soak web web-check requirements clean

run: .venv/run  ## retrain a model; evergreen's own options in ARGS
	.venv/bin/evergreen run $(MODEL) $(ARGS)

up: .venv/run  ## the Prefect UI on 127.0.0.1:4200, all schedules, and an endpoint per released model from 3000 on
	.venv/bin/evergreen up $(ARGS)

serve: .venv/run  ## serve the champion on 127.0.0.1:3000
	.venv/bin/evergreen serve $(MODEL) $(ARGS)

ui: .venv/run  ## the Prefect UI on 127.0.0.1:4200
	.venv/bin/evergreen ui $(ARGS)

test: .venv/dev  ## the tests that take minutes together
	$(PYTEST) -m "not slow" $(ARGS)

test-all: .venv/dev  ## these and the long ones
	$(PYTEST) $(ARGS)

test-slow: .venv/dev  ## what `make test` leaves out, and every property on all its examples
	EVERGREEN_THOROUGH=1 $(PYTEST) -m "slow or hypothesis" $(ARGS)

lint: .venv/dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/dev
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

bench: .venv/dev .venv-bench/peers .venv-bench-uvicorn/peers  ## figures, each beside what it is to be compared with
	.venv/bin/python -m bench $(ARGS)

soak: .venv/dev  ## everything up for ten minutes while data breaks and processes are killed; ARGS='--minutes 60'
	.venv/bin/python -m bench.soak $(ARGS)

web: bentos/web/node_modules  ## build the page for people, which is committed in bentos/static
	cd bentos/web && npm run build

web-check: bentos/web/node_modules  ## its tests, and whether what is committed was built from its sources
	cd bentos/web && npm test
	built=$$(mktemp -d) && trap 'rm -rf "$$built"' EXIT && \
		(cd bentos/web && npm run build -- --outDir "$$built" --logLevel warn) && \
		{ diff --recursive --brief bentos/static "$$built" || \
		{ echo "bentos/static was not built from bentos/web: run \`make web\`, and commit bentos/static" >&2; exit 1; }; }

requirements: .venv/dev  ## pin anew what requirements*.in ask for
	for file in requirements requirements-dev bench/endpoint/requirements bench/endpoint/requirements-uvicorn; do \
		.venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			$(ARGS) $$(test $$file != requirements-dev || echo requirements.in) $$file.in --output-file $$file.txt; done
	sed -n '/^sqlalchemy==/,/[^\\]$$/p' requirements.txt | sed 's/^sqlalchemy/&[asyncio]/' > requirements.txt.also
	cat requirements.txt.also >> requirements.txt && rm requirements.txt.also

clean:  ## what was installed and cached; models and history stay in .evergreen
	rm -rf .venv .venv-bench .venv-bench-uvicorn .mypy_cache .ruff_cache .pytest_cache *.egg-info bentos/web/node_modules

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "evergreen needs Python 3.11 or newer: install it, or name it: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/run: .venv/bin/python requirements.txt pyproject.toml
	$(PIP) install --require-hashes --requirement requirements.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev: .venv/run requirements-dev.txt
	$(PIP) install --require-hashes --requirement requirements-dev.txt
	touch $@

bentos/web/node_modules: bentos/web/package.json bentos/web/package-lock.json
	@command -v npm > /dev/null || { echo "to build the page, evergreen needs Node 20.19 or newer with npm" >&2; exit 1; }
	cd bentos/web && npm ci
	touch $@

.venv-bench/peers: .venv/dev bench/endpoint/requirements.txt
	$(PEERS)

.venv-bench-uvicorn/peers: .venv/dev bench/endpoint/requirements-uvicorn.txt
	$(PEERS)
