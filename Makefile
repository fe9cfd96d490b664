# Everything starts from a fresh clone and a Python 3.11 to 3.13 (PYTHON chooses one). BITCOIND chooses a node.

PY := .venv/bin/python
CHECKED := coordinator smpc pegin pegout sweep slashing deploy tests
PYTEST_JOBS ?= 2
EMERGENCIES := $(addprefix tests/integration/test_,armed_devnet.py vanished_groups.py hostile_groups.py)

.PHONY: setup bitcoind demo demo-emergency test test-emergencies format lint bench soak proto lock clean

setup:
	@deploy/bootstrap/setup

bitcoind: setup
	@$(PY) -m coordinator.devnet.bitcoind_binary 2>/dev/null \
	  || { PYTHON=$(PY) deploy/node/install_bitcoind && $(PY) -m coordinator.devnet.bitcoind_binary; }

# Moves money both ways on a devnet of 16 participants.
demo: bitcoind
	@$(PY) -m coordinator.demo

# A whole Validator group turns malicious, and its BTC leaves it.
demo-emergency: bitcoind
	@$(PY) -m coordinator.demo_emergency

# The one command that says whether the tree is sound.
test: lint bitcoind
	$(PY) -m pytest -n $(PYTEST_JOBS) --dist loadscope

# Whole groups deleted, lying, withholding: real processes, one devnet of 20 after the other, some twenty minutes.
test-emergencies: bitcoind
	$(PY) -m pytest -m soak $(EMERGENCIES)

lint: setup
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy $(CHECKED)
	.venv/bin/lint-imports --no-logo
	deploy/proto/check

format: setup
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: bitcoind
	@$(PY) -m tests.bench

# Kill matrices, fuzzing, seeds: minutes to hours.
soak: bitcoind
	$(PY) -m pytest -m soak --timeout 0

proto: setup
	deploy/proto/generate

# Resolves the dependencies of pyproject.toml anew.
lock: setup
	deploy/bootstrap/lock

clean:
	rm -rf .venv .tools .devnet build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
