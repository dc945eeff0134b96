# Everything happens in .venv, which `make` sets up when it is first needed: Python 3.11 or later and make will do.

# The first of these that is new enough and can make virtual environments; looked for only when it is needed.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/ready
TOOLS := .venv/ready-to-develop
COMPOSE ?= docker compose
SIMULATE = $(BIN)/python -m tests.simulation
# Tests at once: more than small machines have cores, because half of the tests wait.
AT_ONCE ?= 3
N ?= 1000
SOAK_N ?= 10000

.DEFAULT_GOAL := help
.PHONY: help demo run test check lint format types sim soak mutants chaos analysis bench bench-smoke up down logs clean

help: ## print this
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(READY) ## a batch on a balancer and three nodes of this machine, every result checked
	$(BIN)/python examples/demo.py

run: $(READY) ## the same cluster to play with, until Ctrl-C
	$(BIN)/python examples/demo.py --stay

test: $(TOOLS) ## all tests, with the reason for each that is skipped
	$(BIN)/pytest -q -rs -n $(AT_ONCE) --dist loadgroup

check: lint types test ## what a change must pass: lint, types and test

lint: $(TOOLS) ## style, and whether the format is as it should be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TOOLS) ## put the format right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TOOLS) ## strict types
	$(BIN)/mypy

chaos: $(READY) ## kill, pause, stop and cut off a cluster under load, then say what was lost
	$(BIN)/python -m chaos

sim: $(TOOLS) ## stories of a simulated cluster in which things break: N=1000 of them, or SEED=17 again
	$(SIMULATE) $(if $(SEED),--seed $(SEED) $(if $(POINTS),--points '$(POINTS)'),--n $(N))

soak: $(TOOLS) ## all of it for hours: SOAK_N=10000 stories, as many pairs of crashes, and real processes and containers
	$(SIMULATE) --n $(SOAK_N)
	$(SIMULATE) --pairs $(SOAK_N)
	JOBYARD_SOAK=1 $(BIN)/pytest -q -rs -s --timeout 14400 -m system

mutants: $(TOOLS) ## whether each of the promises, broken on purpose, is found broken
	$(BIN)/python -m tests.simulation.mutants

# SEEDS=20 REAL_SEEDS=3 ONLY=yacs,… QUICK=1 PUBLISH=1; see analysis/README.md
analysis: $(READY) ## how the placement policies compare on the same workloads: QUICK=1 for seconds
	$(BIN)/python -m analysis $(if $(SEEDS),--seeds $(SEEDS)) $(if $(REAL_SEEDS),--real-seeds $(REAL_SEEDS)) \
		$(if $(ONLY),--only "$(ONLY)") $(if $(QUICK),--quick) $(if $(PUBLISH),--publish)

# PEERS=beanstalkd,huey,… or none; ONLY=noop,trip,…; REPEATS=5; SCALE=small to see that it works; see benchmarks/README.md
bench: $(READY) ## how fast it is here, beside its peers: PEERS=… ONLY=… (all: some hours)
	$(BIN)/python -m benchmarks $(if $(PEERS),--peers "$(PEERS)") $(if $(ONLY),--only "$(ONLY)") \
		$(if $(REPEATS),--repeats $(REPEATS)) $(if $(SCALE),--scale $(SCALE))

bench-smoke: $(READY) ## has it become slow? in about a minute
	$(BIN)/python -m benchmarks.smoke $(if $(RECORD),--record)

up: ## the same in containers: node1 to node3 on ports 9001 to 9003
	$(COMPOSE) up --build --detach

down: ## stop the containers; volumes, and so jobs, stay
	$(COMPOSE) --profile more down

logs: ## what the containers log, as it comes
	$(COMPOSE) --profile more logs --follow

clean: ## remove what was built here, but no data
	rm -rf .venv build dist *.egg-info client/build client/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf benchmarks/.venv-peers benchmarks/.debian

# pip reads dependency groups itself only since 25.1, and the one that comes with Python may be older.
GROUP = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["$(1)"], sep="\n")
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(READY): pyproject.toml client/pyproject.toml
	$(if $(PYTHON),,$(error no Python 3.11 or later with venv was found; say where it is: make PYTHON=/path/to/python3))
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -c '$(call GROUP,demo)' > .venv/demo-requirements.txt
	$(INSTALL) -e . -e ./client -r .venv/demo-requirements.txt
	touch $@

$(TOOLS): $(READY)
	$(BIN)/python -c '$(call GROUP,dev)' > .venv/dev-requirements.txt
	$(INSTALL) -r .venv/dev-requirements.txt
	touch $@
