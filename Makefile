# Everything runs in .venv, which is set up on first use and again when a range or a pin changes.
PYTHON ?= python3
ARGS ?=
VENV := .venv
SERVE := .venv-serve
# vLLM's interpreter: one that AVQA_VLLM_PYTHON names, or that of our own environment for it.
AVQA_VLLM_PYTHON ?= $(CURDIR)/$(SERVE)/bin/python
SERVE_READY := $(if $(filter $(CURDIR)/$(SERVE)/%,$(AVQA_VLLM_PYTHON)),$(SERVE)/.ready)
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --disable-pip-version-check --constraint requirements.txt --editable

.PHONY: help demo headline test serve serve-demo serve-env test-serve check requirements clean

help: ## list the targets (default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s%s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Options: PYTHON=python3.12 picks the interpreter, ARGS="-k cli" goes to pytest.'
	@echo 'On Linux, PyPI gives the CUDA build of torch (gigabytes). For the CPU build, before the'
	@echo 'first make: export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu'

demo: $(VENV)/.ready-app ## set up, then open the chat page (ARGS="--help" says more)
	@$(RUN) app --open $(ARGS)

headline: $(VENV)/.ready ## all figures of the embedded model on Bandstand in one table
	@$(RUN) eval headline $(ARGS)

test: $(VENV)/.ready-dev ## set up for development, then run the tests
	@$(RUN) pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

serve: $(VENV)/.ready-serve ## serve the embedded model over HTTP (ARGS="--help" says more)
	@$(VENV)/bin/avqa serve $(ARGS)

serve-demo: $(VENV)/.ready-dev $(SERVE_READY) ## serve it through vLLM, ask with the openai client
	@AVQA_VLLM_PYTHON=$(AVQA_VLLM_PYTHON) $(VENV)/bin/python app/serve_demo.py $(ARGS)

serve-env: $(SERVE)/.ready ## set up vLLM in an environment of its own (some gigabytes)

test-serve: $(VENV)/.ready-dev $(SERVE_READY) ## the tests with a real vLLM, which take minutes
	@AVQA_VLLM_PYTHON=$(AVQA_VLLM_PYTHON) $(RUN) pytest -q tests/test_vllm_adapter.py \
	  tests/test_serving_vllm.py tests/test_agent_vllm.py $(ARGS)

check: $(VENV)/.ready-dev ## lint, format check and types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

requirements: ## compile requirements.txt anew from the ranges of pyproject.toml
	$(PYTHON) .ci/compile_requirements.py

clean: ## remove .venv and all caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that is already there is kept, whichever Python it has.
$(VENV)/.ready: pyproject.toml requirements.txt
	@$(RUN) pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo 'This needs Python 3.10 or later, which "$(PYTHON)" is not.'; \
	    echo 'Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12'; \
	    exit 1; }; \
	  echo 'Setting up $(VENV): a few minutes, once.'; \
	  $(PYTHON) -m venv $(VENV); }
	$(INSTALL) .
	@touch $@

$(VENV)/.ready-app: $(VENV)/.ready
	$(INSTALL) '.[app]'
	@touch $@

$(VENV)/.ready-serve: $(VENV)/.ready
	$(INSTALL) '.[serve]'
	@touch $@

$(SERVE)/.ready: requirements-serve.txt
	@$(PYTHON) -m avqa_llm.serving.vllm_install $(SERVE) --python $(PYTHON)
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(INSTALL) '.[dev]'
	@touch $@
