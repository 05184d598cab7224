# `make demo` and `make test` are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEED ?= 0
ARGS ?=

.PHONY: demo test setup check format bench constraints clean

demo: setup  ## Two agents learn Kuhn poker by self-play (SEED=n, ARGS="key=value ...")
	@$(BIN)/marl-llm train configs/kuhn.yaml run.seed=$(SEED) $(ARGS)

test: setup  ## Everything that .ci/run checks: style, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest

check: test

format: setup  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup  ## Ratios against what one would use instead (transformers generate, a padded loop, TRL, vLLM, games without text)
	$(BIN)/python scripts/bench/rollout.py
	$(BIN)/python scripts/bench/learner.py
	$(BIN)/python scripts/bench/step.py
	$(BIN)/python scripts/bench/trl.py
	$(BIN)/python scripts/bench/game_text.py

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; use make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

constraints: setup  ## Write constraints.txt anew from what is installed
	{ echo "# Exact versions that are tested together (Python 3.11, Linux). Made by 'make constraints'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.tmp
	mv constraints.tmp constraints.txt

clean:  ## Remove what make made, except runs
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
