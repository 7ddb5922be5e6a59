# Every target starts from a fresh clone: `setup` brings what is missing into the checkout.
SHELL := /bin/sh
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-16s %s\n", $$1, $$2}'

# From another folder, so that a pyenv shim does not insist on the version that .python-version names.
setup: ## make .venv/ in the checkout, with all that the targets below need
	@here="$(CURDIR)"; cd / && $(PYTHON) "$$here/scripts/bootstrap.py"

demo: setup ## run a whole live competition on this machine; ARGS="--seconds 45" passes arguments on
	@$(BIN)/coordinator-node demo $(ARGS)

# The settings of containers: what the terminal sets comes before what .local.env says.
COMPOSE := docker compose --env-file .local.env --profile '*'
API_PORT = $(or $(REPORT_API_PORT),$(shell sed -n 's/^REPORT_API_PORT=//p' .local.env 2>/dev/null | tail -n 1),8000)
API ?= http://127.0.0.1:$(API_PORT)

.local.env:
	@cp .local.env.example .local.env

deploy: .local.env ## build and start all in containers; ARGS="--scale score-worker=3" passes arguments on
	@$(PYTHON) scaffold/node/scripts/deploy.py $(ARGS)

down: .local.env ## stop and remove the containers; ARGS="--volumes" removes the database too
	@$(COMPOSE) down --remove-orphans $(ARGS)

logs: .local.env ## follow what the containers say; ARGS="score-worker" for one
	@$(COMPOSE) logs --follow $(ARGS)

verify-e2e: .local.env ## wait until every model is scored, and a leaderboard and a checkpoint exist
	@$(PYTHON) scaffold/node/scripts/verify_e2e.py --url $(API) $(ARGS)

test: setup ## run the tests; ARGS="-k name" passes arguments on
	@$(BIN)/python -m pytest -n auto $(ARGS)

lint: setup ## check style, types and layers
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy && $(BIN)/mypy --strict docs/verify/verify.py
	@$(BIN)/lint-imports

bench-feed: setup ## records stored a second, beside a plain COPY
	@$(BIN)/python tests/benchmarks/bench_feed.py $(ARGS)

bench-retention: setup ## what it costs to store and to forget records beside 5,000,000 others, by row and by partition
	@$(BIN)/python tests/benchmarks/bench_retention.py $(ARGS)

bench-predict: setup ## slots kept and CPU with 200 models, beside bare gRPC calls; ARGS="--hanging-pairs 10" for one that hangs
	@$(BIN)/python tests/benchmarks/bench_predict.py $(ARGS)

bench-score: setup ## predictions scored a second beside up to a million old ones, and beside the floor; what the Merkle log costs
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_score.py $(ARGS)
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_commitments.py
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_score_workers.py

chaos: setup ## kill, stop, cut and fill up whatever a running stack consists of, and look at every row after; ARGS="--only clock"
	@$(BIN)/python tests/chaos/run_chaos.py $(ARGS)

bench-api: setup ## what each endpoint takes beside a million predictions, alone and with 32 clients
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_api.py $(ARGS)

fuzz-api: setup ## ask the API 2,000 made-up questions by its OpenAPI page
	@FUZZ_CASES=2000 $(BIN)/python -m pytest tests/api/test_api_fuzz.py $(ARGS)

bench-backtest: setup ## bars a second of a backtest of 30 days, and the share of the model's own code
	@PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench_backtest.py $(ARGS)

verify-packs: setup ## play every pack from the built wheel, outside the checkout; ARGS="trading" for one; minutes
	@$(BIN)/python scripts/verify_packs.py $(ARGS)

soak: setup ## 50 idle models for an hour: does the stack's memory grow? ARGS="--minutes 6" for a short run
	@$(BIN)/python tests/chaos/soak.py $(ARGS)

format: setup ## rewrite the code in the project's style
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: setup ## write requirements.lock anew from pyproject.toml
	@$(BIN)/python scripts/lock.py

clean: ## remove environments, caches and local runs
	@rm -rf .venv .uv .coordinator dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: help setup demo deploy down logs verify-e2e test lint bench-feed bench-retention bench-predict bench-score chaos bench-api fuzz-api bench-backtest verify-packs soak format lock clean
