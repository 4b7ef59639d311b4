# Everything here is a plain command; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin

# With libvips-dev on the machine, pip would compile pyvips against the system's older libvips and
# overwrite the one of the wheel; and it would cache that build. Hence the variable and the flag.
PIP_INSTALL := PKG_CONFIG_LIBDIR=/nonexistent $(BIN)/pip --disable-pip-version-check install --quiet --no-cache-dir

.DEFAULT_GOAL := help
.PHONY: help setup run test lint type fmt lock docs bench bench-scale cluster worker clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

setup: .venv/.runtime ## Build .venv with the pixelmill command in it, and nothing else

.venv/.runtime: requirements.lock pyproject.toml
	@echo "building .venv (half a minute)"
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --require-hashes -r requirements.lock
	$(PIP_INSTALL) --no-deps -e .
	$(BIN)/python -c 'from transforms import libvips; libvips.require_supported_version()'
	touch $@

.venv/.dev: .venv/.runtime requirements-dev.lock
	@echo "adding what tests and checks need"
	$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	$(BIN)/python -c 'from transforms import libvips; libvips.require_supported_version()'
	touch $@

run: .venv/.runtime ## Draw sample originals and serve them on http://127.0.0.1:8000
	$(BIN)/pixelmill samples
	$(BIN)/pixelmill serve

# Bytecode is kept whatever the shell says: pytest compiles more than a thousand files, and each of
# its workers, and every process that a test starts, would do so again.
test: .venv/.dev ## Run the whole test suite
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n logical --dist worksteal

lint: .venv/.dev ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/.dev ## Check types
	$(BIN)/mypy

fmt: .venv/.dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.dev ## Write the generated parts of the README, and the gallery
	$(BIN)/python -m docs.tables
	$(BIN)/python -m docs.gallery

# The locks hold hashes and no address of any package index.
UV_COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-annotate --no-header --extra fast --extra postgres pyproject.toml

lock: ## Resolve the dependencies anew
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet uv
	$(UV_COMPILE) --upgrade -o requirements.lock
	$(UV_COMPILE) --group dev -c requirements.lock -o requirements-dev.lock

bench: .venv/.dev ## Measure speed and memory: renders, kits, jobs, hits, overload
	$(BIN)/python -m bench all

SECONDS := 30
cluster: .venv/.dev ## Run 3 replicas, 2 workers, S3, PostgreSQL and a balancer, end two of them, tell: SECONDS=30 KEEP=--keep
	$(BIN)/python -m bench.cluster --seconds $(SECONDS) $(KEEP)

bench-scale: .venv/.dev ## Simulate many replicas over a day; fill docs/scaling.md and draw its pictures
	$(BIN)/python -m bench.simulate

worker: .venv/.runtime ## Make eight results of a photograph: make worker PHOTO=cat.jpg OUT=results
	$(BIN)/python -m bench.worker $(PHOTO) $(OUT)

clean: ## Remove what was built; ./data stays
	rm -rf .venv .venv-lock .pytest_cache .mypy_cache .ruff_cache .hypothesis bench/results
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
