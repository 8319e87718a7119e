# SPDX-License-Identifier: GPL-2.0-only
# What one does with memhp. `make` alone prints this list.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
READY := .venv/.ready
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test check fix bench ledger lab tiny-kernel memblock-oracle docs clean

# An environment that was made in another folder does not run in this one: make it anew.
ifneq ($(wildcard $(READY)),)
ifneq ($(shell cat $(READY)),$(CURDIR))
$(shell rm -rf .venv)
endif
endif

help:  ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 24
	@echo
	@echo '  ARGS goes to pytest and to the benchmarks: make test ARGS="-k memblock"'

setup: $(READY)  ## Make .venv with memhp and its tools in it (quick when it is there)

$(READY): pyproject.toml Makefile
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here. On Debian or Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: memhp needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
	    echo "      With a newer one beside it: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "make: this Python cannot make environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making .venv ready …"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --only-binary :all: -e '.[dev]' || { \
	    echo "make: installing failed; the lines above say why. memhp needs PyPI once, afterwards nothing from outside." >&2; exit 1; }
	@printf '%s\n' '$(CURDIR)' >$(READY)

run: $(READY)  ## Tell the story of the mail: memhp explain
	@$(BIN)/memhp explain

test: $(READY)  ## Run the tests; those that need what is not here are skipped, and say what is missing
	$(BIN)/pytest $(ARGS)

check: $(READY)  ## ruff, mypy --strict on src, who may import whom
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)  ## Let ruff repair what it can
	$(BIN)/ruff check --fix

bench: $(READY)  ## Run the benchmarks; each prints its figure beside its budget
	$(BIN)/python -m bench $(ARGS)

ledger: $(READY)  ## Hold every line of the model against the recorded kernels; writes docs/fidelity.md and recorded/ledger.json
	$(BIN)/python -m tools.ledger $(ARGS)

lab: $(READY)  ## Tests against real kernels in QEMU (tests/vm): fetches kernels once, some 200 MiB, then some minutes
	$(BIN)/memhp vm fetch --all
	$(BIN)/memhp vm doctor
	MEMHP_LAB=1 $(BIN)/pytest tests/vm -n 2 --dist loadscope $(ARGS)
	MEMHP_LAB=1 $(BIN)/pytest tests/test_readme.py -k real-kernels -n 0

tiny-kernel: $(READY)  ## Build a kernel without memory hotplug, from linux-source-6.12 (three minutes, once; in your cache folder)
	@$(BIN)/python -m tests.vm.tiny_kernel

memblock-oracle: $(READY)  ## Build the C memblock from linux-source-6.1 and -6.12, the judge of the model's (in your cache folder)
	@$(BIN)/python -m tests.oracles.memblock_c

docs: $(READY)  ## Run every command that README.md and docs/ show, and compare what they print
	$(BIN)/pytest tests/test_readme.py $(ARGS)

clean:  ## Remove .venv and what tools left behind
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
