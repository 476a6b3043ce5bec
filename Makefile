# promptmii: `make demo` and `make test` need Python 3.11+, pip and make, nothing else. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSIONS := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
LIGHT := $(VENV)/.light-$(VERSIONS)
SETUP := $(VENV)/.ready-$(VERSIONS)
SMOL := $(VENV)/.smol
ZERO3 := $(VENV)/deepspeed
DEMO := src/promptmii/data/demo.csv
BASE := hf:qwen
LEARNS = --tasks written $(if $(TASKS),--tasks "$(TASKS)") --set 'reward.followers=["$(BASE)"]'
GOES_ON = $(if $(wildcard $(1)/run.json),--resume)

.PHONY: help setup demo train-writer results test test-core lint types types-src types-tests docs models screenshot check bench clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / -- /'

setup: $(SETUP)  ## make .venv with pinned versions

$(LIGHT):
	@echo "== Setting up $(VENV) (once; downloads about 150 MB)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "promptmii needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@rm -f $(VENV)/.light-*; touch $@

$(SETUP): $(LIGHT)
	@echo "== Adding torch, training, the corpus tools and the tests to $(VENV) (once; downloads about 300 MB)"
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[hf,corpus,train,gepa,rivals,ray,ui,mcp,docs,dev]'
	@rm -f $(VENV)/.ready-*; touch $@

$(SMOL): | $(SETUP)
	@echo "== Fetching the embedded model (once; 98 MB)"
	$(BIN)/promptmii models install smol
	@touch $@

# Installed apart from the rest, because it warns wherever it is imported; only processes of the distributed tests see it.
$(ZERO3): | $(SETUP)
	@echo "== Adding DeepSpeed for the tests of ZeRO-3 (once)"
	$(BIN)/pip install --quiet --constraint constraints.txt --target $@ --no-deps deepspeed hjson ninja py-cpuinfo einops \
		|| { rm -rf $@; echo "no DeepSpeed: tests of ZeRO-3 are skipped"; }

demo: $(LIGHT)  ## the main job on a bundled CSV with the embedded 1.5B model (1.1 GB, once): no key, no GPU, no torch
	@mkdir -p runs
	@model=qwen-writer; $(BIN)/promptmii models install $$model || { model=smol; \
		echo "== qwen could not be downloaded; continuing with smol, which is far too small to write or follow well"; \
		$(BIN)/promptmii models install smol; } && \
	echo "== promptmii induce $(DEMO) -n 20 --eval 48 --generator $$model -o runs/demo.json" && \
	$(BIN)/promptmii induce $(DEMO) -n 20 --eval 48 --generator $$model -o runs/demo.json --force --yes && \
	$(BIN)/promptmii predict runs/demo.json "The parcel never came and nobody answers my mails"

train-writer: $(SETUP)  ## train a writer like qwen-writer into runs/distilled (a GPU: minutes; two cores: see docs/warm-start.md); run it again after a stop
	$(if $(findstring /,$(BASE)),,$(BIN)/promptmii models install $(BASE:hf:%=%))
	$(BIN)/promptmii train warm-start --model $(BASE) -o runs/warm-start $(WARM) $(call GOES_ON,runs/warm-start)
	$(BIN)/promptmii train writer --model $(BASE)+runs/warm-start/best $(LEARNS) -o runs/writer $(RL) $(call GOES_ON,runs/writer)
	$(BIN)/promptmii train best-drafts --model $(BASE)+runs/writer/best $(LEARNS) -o runs/drafts $(DRAFTS) $(call GOES_ON,runs/drafts)
	$(BIN)/promptmii train distil --model $(BASE)+runs/writer/best --set pairs=runs/drafts/pairs.jsonl -o runs/distilled \
		$(DISTIL) $(call GOES_ON,runs/distilled)

results: $(SETUP)  ## measure everything in docs/results.md, on the tasks in the folder TASKS (hours); run it again after a stop
	@test -d "$(TASKS)" || { echo "Give the folder of the task files: make results TASKS=../my-tasks"; exit 2; }
	for model in qwen qwen-small minilm; do $(BIN)/promptmii models install $$model || exit; done
	$(BIN)/promptmii evaluate results --tasks "$(TASKS)" -o runs/results || test $$? -eq 4  # 4: some cells failed; the report names them
	$(BIN)/promptmii report runs/results $(patsubst %/metrics.jsonl,%,$(wildcard runs/*/metrics.jsonl)) --markdown docs/results.md

test: $(SETUP) $(SMOL) $(ZERO3)  ## every test, the embedded model included
	$(BIN)/pytest -n auto

test-core: $(SETUP)  ## the quick tests, which need no weights
	$(BIN)/pytest -n auto -p no:logging --hypothesis-profile=quick -m 'not smol and not slow and not cluster and not browser and not distributed'

lint: $(SETUP)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: types-src types-tests  ## pyright, strict on src, basic on tests, examples and benchmarks

types-src: $(SETUP)
	$(BIN)/pyright

types-tests: $(SETUP)
	$(BIN)/pyright -p tests

docs: $(SETUP)  ## the site, into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

screenshot: $(SETUP)  ## the README's picture of the page, as `make demo` runs; needs chromium
	$(BIN)/promptmii models install qwen-writer
	$(BIN)/python -m tests.screenshot docs/ui.webp

models: $(SETUP)  ## the larger models that some tests need (1.3 GB); those tests are skipped without them
	for model in minilm qwen; do $(BIN)/promptmii models install $$model || echo "no $$model: its tests are skipped"; done

check: lint types docs models test  ## everything that CI runs

bench: $(SETUP) $(SMOL)  ## benchmarks of labelling, writing and calibration
	$(BIN)/python benchmarks/follower.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/calibration.py

clean:  ## remove the virtual environment
	rm -rf $(VENV)
