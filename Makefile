# Targets make .venv and fetch the model and the texts by themselves. `make help` lists them.
PYTHON ?= python3
BIN = .venv/bin
# One worker per core, each with one thread; at most four, to keep memory below 8 GB.
PYTEST = WANDA_STRICT=1 $(BIN)/pytest -p no:nbval -n logical --maxprocesses 4
FILES =

.DEFAULT_GOAL := help
.PHONY: help run test test-all lab notebooks bench results publish colab-rehearsal clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 17

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebooks,test,finetune,zero-shot]'
	$(BIN)/wanda fetch
	touch $@

run: .venv/ready  ## the main job: prune a real model three ways; table, page, figure and JSON in build/
	@echo "Seven rows: the dense model, and three methods at 50 % and at 2:4. Each is kept in build/ as soon as it is measured."
	$(BIN)/python -m wanda_course.main_job --out build

test: .venv/ready  ## style and tests, without the slow ones; a part: make test FILES="tests/test_masks.py"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m 'not slow' $(FILES)

test-all: .venv/ready  ## all tests
	$(PYTEST) $(FILES)

lab: .venv/ready  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

notebooks: .venv/ready  ## execute every notebook in place, in order
	$(BIN)/python -m wanda_course.execute all --in-place

bench: .venv/ready  ## the time of each method over the time of a dense forward pass
	$(BIN)/python -m benchmarks.speed

results: .venv/ready  ## measure what is missing in results/ (hours, from nothing; resumes), draw the README's table
	test -f results/main_job.json || $(BIN)/python -m benchmarks.processors --rows
	test -f results/speed.json || $(BIN)/python -m benchmarks.speed --out results/speed.json
	$(BIN)/python -m benchmarks.quality
	$(BIN)/python -m benchmarks.peers
	test -f results/memory.json || $(BIN)/python -m benchmarks.memory --out results/memory.json
	$(BIN)/python -m benchmarks.readme

publish: .venv/ready  ## say where the repository lives, in every file that names it: REPO=owner/name
	$(BIN)/python -m wanda_course.publish '$(REPO)'

colab-rehearsal: .venv/ready  ## play Colab here: a fresh environment, notebooks 00 and 04 alone in an empty folder
	$(BIN)/python tests/notebooks/colab_rehearsal.py

clean:  ## remove what was built (not the cache of fetched files)
	rm -rf .venv build
