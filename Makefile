PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PEERS := .venv-peers

.PHONY: demo test lint synth peers-env clean

demo: $(STAMP)
	$(BIN)/gblr-hw demo --out demo-output

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

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

# SCALE-Sim and ZigZag, for benchmarks/peers.py: their numpy is older than ours, so they have an environment of their own.
peers-env: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers-constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint benchmarks/peers-constraints.txt scalesim zigzag-dse six
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
