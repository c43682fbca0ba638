# `make help` lists what there is. Arguments of a command: make serve ARGS="--port 9000".
.POSIX:
.DEFAULT_GOAL := help
.PHONY: help serve load test check format prove clean
ARGS =

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

serve: ## create the environment, install, and serve on http://127.0.0.1:8888
	@scripts/install cpu
	@exec .venv/bin/speech-gateway serve $(ARGS)

load: ## one minute of load against a simulated A100; the report comes to build/load
	@scripts/install load
	@.venv/bin/python -m loadtest.demonstration $(ARGS)

test: ## create the environment, install what tests need, run all tests
	@scripts/install cpu load test
	@scripts/test $(ARGS)

check: ## layout, lint and types
	@scripts/install cpu load test
	@scripts/check

format: ## rewrite layout and what lint can mend itself
	@scripts/install cpu load test
	.venv/bin/ruff check --fix-only .
	.venv/bin/ruff format .

prove: ## run the long proofs; writes dated results into docs/evidence/
	@scripts/install cpu load test
	@scripts/install-clients prove
	@scripts/prove $(ARGS)

clean: ## remove the environment and everything that was built
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -rf tests/clients/node/node_modules tests/monitoring/node/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
