# Everything is installed inside this folder: .venv and node_modules. See README.md.
PYTHON ?= python3
BIN := .venv/bin
NATIVE := setup.py $(wildcard engine/native/*)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help setup demo demo-crowd test check format gas artifacts golden bench bench-publish bench-gas bench-economy bench-strategies bench-churn coverage slither test-slow test-aarch64 test-ipfs test-hf clean

help:
	@echo "make demo       the main job on an embedded chain: bought, cheated on, caught, done again, paid"
	@echo "make demo-crowd four machines train one model, one leaves, one joins, two cheat"
	@echo "make test       all tests but the slow ones (Python and Solidity)"
	@echo "make check      formatting, linting, strict types, generated files"
	@echo "make setup      only install, for development"
	@echo "make bench      training and kernels beside PyTorch (an idle machine, half an hour; ARGS=--quick: minutes)"
	@echo "make bench-publish  its results into docs/PERFORMANCE.md"
	@echo "make bench-gas  gas of every transaction and of a whole dispute"
	@echo "make bench-economy  honest and dishonest agents on the contracts, into docs/ECONOMICS.md (minutes)"
	@echo "make bench-strategies  a small GPT with every training strategy (half an hour; ARGS=--publish: into docs/STRATEGIES.md)"
	@echo "make bench-churn  unequal solvers of which many are killed, beside the forecast (five minutes; ARGS=--publish: into docs/SIMULATION.md)"
	@echo "make coverage   which lines and branches of the contracts the Forge tests reach (a quarter of an hour)"
	@echo "make slither    static analysis of the contracts (installs Slither in a folder of its own; minutes)"
	@echo "make test-slow  exhaustive and long suites (an hour or more)"
	@echo "make test-aarch64  the kernels cross-compiled for ARM, under an emulator (needs two Debian packages)"
	@echo "make test-ipfs  stores against a real IPFS daemon (installs it, 290 MB)"
	@echo "make test-hf    models of Hugging Face's transformers (installs it, 150 MB)"
	@echo "make gas        the committed tables of gas, anew (contracts/test/snapshots); make test fails if they drift"
	@echo "make golden     golden models and roots, anew (crowdtrain selftest compares machines with them)"
	@echo "make artifacts  compile the contracts into the package; regenerate shared tables"

$(BIN)/python:
	@echo "==> creating .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "==> installing crowdtrain and building the engine (a few minutes the first time)"
	@$(PIP) -e '.[demo]'
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt $(NATIVE) | $(BIN)/python
	@echo "==> installing crowdtrain, building the engine, installing test tools (a few minutes the first time)"
	@$(PIP) -e '.[dev]'
	@touch $@ .venv/demo.stamp

node_modules/.stamp: package.json package-lock.json
	@echo "==> installing the chain and the Solidity tools"
	@npm ci --silent --no-audit --no-fund
	@touch $@

setup: .venv/dev.stamp node_modules/.stamp

demo: .venv/demo.stamp node_modules/.stamp
	@$(BIN)/crowdtrain demo $(ARGS)

demo-crowd: .venv/demo.stamp node_modules/.stamp
	@$(BIN)/crowdtrain demo --crowd $(ARGS)

test: setup
	FORGE_SNAPSHOT_CHECK=true node_modules/.bin/forge test
	$(BIN)/pytest -m 'not slow and not ipfs' -n 2 --dist loadgroup

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	node_modules/.bin/forge fmt --check contracts

gas: setup
	node_modules/.bin/forge test --match-contract 'Gas|Float32|Referee'

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	node_modules/.bin/forge fmt contracts

artifacts: setup
	$(BIN)/python contracts/tools/build.py

golden: setup
	cd tests && PYTHONPATH=. ../$(BIN)/python -m golden

bench: setup
	$(BIN)/python -m bench $(ARGS)

bench-publish: setup
	$(BIN)/python -m bench.publish $(ARGS)

bench-gas: setup
	$(BIN)/python bench/gas.py

bench-economy: setup
	$(BIN)/python -m bench.economy $(ARGS)

bench-strategies: setup
	$(BIN)/python -m bench.strategies $(ARGS)

bench-churn: setup
	$(BIN)/python -m bench.churn $(ARGS)

coverage: node_modules/.stamp
	FOUNDRY_PROFILE=coverage node_modules/.bin/forge coverage --ir-minimum --no-match-contract Gas --no-match-test contracts_fit \
		--no-match-coverage 'contracts/(test|devnet)|node_modules' --report summary --report lcov --report-file build/lcov.info

# Slither needs another web3 than the SDK.
build/slither/bin/slither: | $(BIN)/python
	@$(PYTHON) -m venv build/slither
	@build/slither/bin/pip install --quiet --disable-pip-version-check slither-analyzer==0.11.6

slither: build/slither/bin/slither | node_modules/.stamp
	PATH="$(CURDIR)/node_modules/.bin:$$PATH" FOUNDRY_OUT=build/slither/out FOUNDRY_CACHE_PATH=build/slither/cache \
		build/slither/bin/slither . --compile-force-framework foundry --config-file contracts/tools/slither.json

test-slow: setup
	FOUNDRY_PROFILE=slow node_modules/.bin/forge test
	$(BIN)/pytest -m slow

test-hf: setup
	@$(PIP) -e '.[hf]'
	$(BIN)/pytest tests/sdk/test_huggingface.py

test-aarch64: setup
	@command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || { echo "missing: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }
	$(BIN)/pytest -m slow tests/sdk/test_aarch64.py

test-ipfs: setup
	$(BIN)/pytest -m ipfs

clean:
	rm -rf .venv node_modules build .demo engine/crowdtrain_engine/*.so
