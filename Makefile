# On a machine with Python 3.11 or newer, git and make, two commands do all the set-up:
#
#   make demo    explains a caption, a question and a class of the embedded pictures
#   make test    installs what the tests need and passes them
#
# Settings: PYTHON (which Python makes the environment), VENV (where), ARGS (more arguments for the tool that is run).

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
SEED ?= 2026
LIMIT ?= 1000
ARGS ?=

PY := $(VENV)/bin/python
LOWEST := runs/lower-bounds
# Twice quiet: errors show, the talk about package indexes does not.
INSTALL = -m pip install --quiet --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo web test test-browser slow ray gpu check format format-check lint types contracts quality results bench docs wheel lower-bounds

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.demo ## Explain a caption, a question and a class; pictures and an HDF5 dump go to OUT
	@$(PY) scripts/demo.py --out $(OUT) $(ARGS)

web: $(VENV)/.web ## Serve the same as a web page on this machine, for pictures of your own
	$(VENV)/bin/mmcam demo $(ARGS)

test: $(VENV)/.dev ## Run the tests
	$(PY) -m pytest -n 2 $(ARGS)

test-browser: $(VENV)/.dev ## Run the tests that drive a browser; Chromium is installed where there is none
	@$(NEED_CHROMIUM)
	$(PY) -m pytest -m browser tests/browser $(ARGS)

slow: $(VENV)/.dev ## Run the tests that take long
	$(PY) -m pytest -m slow $(ARGS)

ray: $(VENV)/.dev ## Run the tests that start a Ray cluster on this machine
	$(PY) -m pytest -m ray $(ARGS)

gpu: $(VENV)/.dev ## Run the tests that need a CUDA device
	$(PY) -m pytest -m gpu $(ARGS)

# One thread a process: two on a small busy machine were seen 20 times slower.
test test-browser slow ray lower-bounds: export OMP_NUM_THREADS = 1

check: test format-check lint types contracts ## Run everything that CI runs

format: $(VENV)/.dev ## Lay out the code, and mend what the linter can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

format-check: $(VENV)/.dev ## Check the layout of the code
	$(PY) -m ruff format --check .

lint: $(VENV)/.dev ## Check the code's style
	$(PY) -m ruff check .

types: $(VENV)/.dev ## Check the types
	$(PY) -m pyright --pythonpath $(PY)

contracts: $(VENV)/.dev ## Check who imports whom
	$(VENV)/bin/lint-imports --no-logo

quality: $(VENV)/.demo ## Measure the shipped models on LIMIT pictures of a fresh SEED
	@mkdir -p runs/quality
	$(VENV)/bin/mmcam quality --config captioning/scenes --seed $(SEED) --limit $(LIMIT) --json runs/quality/captioning.json
	$(VENV)/bin/mmcam quality --config vqa/scenes --seed $(SEED) --limit $(LIMIT) --json runs/quality/vqa.json
	$(VENV)/bin/mmcam quality --config classification/scenes --seed $(SEED) --limit $(LIMIT) --json runs/quality/classification.json

results: $(VENV)/.demo ## Run the papers' experiments on scenes; tables and plots go to runs/results
	$(PY) scripts/reproduce.py --all --limit 200 --seed 7 $(ARGS)

bench: $(VENV)/.dev ## Compare maps, time and memory with the peers'
	$(PY) benchmarks/bench_engine.py $(ARGS)

docs: $(VENV)/.dev ## Build the documentation as a site that needs no network, into runs/docs
	$(PY) -m sphinx -q -W --keep-going -b html -d runs/docs-cache docs runs/docs $(ARGS)

wheel: $(VENV)/.dev ## Build the wheel into dist/
	$(PY) -m build --wheel --no-isolation

lower-bounds: ## Test with the oldest versions that pyproject.toml allows, in an environment of their own
	@$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) scripts/lower_bounds.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(INSTALL) --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	$(LOWEST)/bin/python -m pytest -n 2 -W default $(ARGS)

define CHECK_PYTHON
command -v $(PYTHON) >/dev/null || { echo "mmcam needs Python 3.11 or newer; there is no '$(PYTHON)' here: name one, as in 'make PYTHON=/usr/bin/python3.12'" >&2; exit 1; }; \
$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "mmcam needs Python 3.11 or newer; $(PYTHON) is %d.%d: name a newer one, as in \"make PYTHON=python3.12\"" % v[:2])'
endef

# Never by sudo: who is not root is told what to run.
CHROMIUM := chromium chromium-sandbox fonts-dejavu-core
define NEED_CHROMIUM
for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit; done; \
command -v apt-get >/dev/null || { echo "the tests of pages need Chromium, and there is no apt-get here: install it by the means of this system, as chromium, chromium-browser or google-chrome" >&2; exit 1; }; \
[ "$$(id -u)" = 0 ] || { echo "the tests of pages need Chromium: run 'sudo apt-get install $(CHROMIUM)', then this again" >&2; exit 1; }; \
echo "Installing Chromium by apt-get; it is big, so this takes some minutes."; \
apt-get -qq update && apt-get -qq install --yes --no-install-recommends $(CHROMIUM)
endef

# Each stamp stands for one finished installation, so that the next run starts at once.
$(VENV)/.made:
	@$(CHECK_PYTHON)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing mmcam into $(VENV); PyTorch is big, so the first time takes some minutes."
	@$(PY) $(INSTALL) --constraint constraints.txt --editable '.[scenes,report]'
	@touch $@

$(VENV)/.web: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing mmcam and its web page into $(VENV); PyTorch is big, so the first time takes some minutes."
	@$(PY) $(INSTALL) --constraint constraints.txt --editable '.[scenes,report,demo]'
	@touch $(VENV)/.demo $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing mmcam and what its tests need into $(VENV); PyTorch is big, so the first time takes some minutes."
	@$(PY) $(INSTALL) --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.demo $(VENV)/.web $@
