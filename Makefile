# Targets create .venv and fetch the model and the texts as needed. `make help` lists the targets.
PYTHON ?= python3
ifeq ($(filter-out base,$(CONDA_DEFAULT_ENV)),)
BIN = .venv/bin/
READY = .venv/ready
else  # use an active conda environment other than base
BIN =
READY = conda
endif
PACKAGE = --editable '.[notebooks,test,finetune,zero-shot]'
INSTALL = python -m pip install --quiet --constraint constraints.txt $(PACKAGE)
# One worker per core, each with one thread; at most four, to keep memory below 8 GB. tests/conftest.py sets WANDA_STRICT=1.
PYTEST = pytest -p no:nbval -n logical --maxprocesses 4
FILES =
EDITION = read
MARP = $(if $(filter 0,$(shell id -u)),CHROME_NO_SANDBOX=1) npx --yes @marp-team/marp-cli@4 --theme-set docs/teaching/slides/course.css --no-stdin --html
ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)  # as in many containers

.DEFAULT_GOAL := help
.PHONY: help conda run test test-all test-oldest test-newest lab editions slides site notebooks bench gpu results publish colab-rehearsal clean

help:  ## list the targets
	@grep -E '^[a-z -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 25

.venv/ready: pyproject.toml constraints.txt
	@echo "Installing the packages into .venv; this takes some minutes, in which pip prints nothing."
	$(PYTHON) -m venv .venv
	$(BIN)$(INSTALL)
	$(BIN)wanda fetch
	touch $@

conda:
	@python -c "from importlib.metadata import version as v; v('wanda-pruning'), v('papermill'), v('pytest')" 2>/dev/null || $(INSTALL)
	@wanda fetch

run: $(READY)  ## the main job: prune a real model three ways; table, page, figure and JSON in build/
	@echo "Seven rows: the dense model, and three methods at 50 % and at 2:4. Each is saved in build/ as soon as it is measured."
	$(BIN)python -m wanda_course.main_job --out build

test: $(READY)  ## style checks and all but the slow tests; one file: make test FILES="tests/test_masks.py"
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)$(PYTEST) -m 'not slow' $(FILES)

test-all: $(READY)  ## all tests
	$(BIN)$(PYTEST) $(FILES)

test-oldest: RESOLUTION = lowest-direct
test-newest: RESOLUTION = highest
test-oldest test-newest:  ## `make test` with the oldest or the newest versions that pyproject.toml allows, in build/
	$(PYTHON) -m venv build/$@
	build/$@/bin/python -m pip install --quiet uv
	build/$@/bin/uv pip install --python build/$@ --quiet --resolution $(RESOLUTION) $(PACKAGE)
	build/$@/bin/wanda fetch
	build/$@/bin/$(PYTEST) -m 'not slow' $(FILES)

lab: $(READY)  ## open a copy of the notebooks, read-notebooks/, in JupyterLab; with EDITION=build, one whose core you write
	$(BIN)python -m wanda_course.editions $(EDITION)
	$(BIN)jupyter lab $(EDITION)-notebooks $(ROOT) $(FLAGS)

editions: $(READY)  ## for a course: every notebook to hand out and solved, in build/editions/; FLAGS=--short: exercises only
	rm -rf build/editions
	$(BIN)python -m wanda_course.editions student --out build/editions/student $(FLAGS)
	$(BIN)python -m wanda_course.editions student --build --out build/editions/student-build $(FLAGS)
	$(BIN)python -m wanda_course.editions solution --out build/editions/solution $(FLAGS)
	$(BIN)python -m wanda_course.editions solution --build --out build/editions/solution-build $(FLAGS)

notebooks: $(READY)  ## execute every notebook in place, in order
	$(BIN)python -m wanda_course.execute all --in-place

slides: $(READY)  ## the two decks as HTML and PDF, in build/slides/; needs Node.js 18 or newer, and Chromium, Chrome or Edge
	$(BIN)python -m wanda_course.slides --out build/slides
	$(MARP) build/slides/*.md
	$(MARP) --pdf build/slides/*.md

bench: $(READY)  ## the time of each method, in dense forward passes
	$(BIN)python -m benchmarks.speed

gpu: $(READY)  ## at most 8 minutes on one GPU, in order of importance: tests, 7B-shaped pruning, 2:4 products; results/gpu.json
	$(BIN)pytest -p no:nbval -n 0 -m gpu
	$(BIN)python -m benchmarks.gpu --minutes 5 --out results/gpu.json
	$(BIN)python -m benchmarks.speed24 --blocks 4 --out results/speed24.json

results: $(READY)  ## measure what is missing in results/ (hours from scratch; resumes), update the README's tables
	test -f results/main_job.json || $(BIN)python -m benchmarks.processors --rows
	test -f results/speed.json || $(BIN)python -m benchmarks.speed --out results/speed.json
	$(BIN)python -m benchmarks.quality
	$(BIN)python -m benchmarks.peers
	test -f results/memory.json || $(BIN)python -m benchmarks.memory --out results/memory.json
	test -f results/sentences.json || $(BIN)python -m benchmarks.sentences
	$(BIN)python -m benchmarks.leaderboard
	$(BIN)python -m benchmarks.readme

site: $(READY)  ## the web site, from the committed notebooks, in build/site
	$(BIN)python -c "import myst_nb, sphinx_book_theme, sphinxcontrib.bibtex" 2>/dev/null || \
		$(BIN)python -m pip install --quiet --constraint constraints.txt --editable '.[site]'
	rm -rf build/site
	$(BIN)python -m sphinx --quiet --fail-on-warning --keep-going -c docs -d build/site-doctrees . build/site
	@echo "Open build/site/index.html."

publish: $(READY)  ## write the repository's address into every file that names it: REPO=owner/name
	$(BIN)python -m wanda_course.publish '$(REPO)'

colab-rehearsal: $(READY)  ## simulate Colab: a fresh environment, notebooks 00 and 04, each alone in an empty folder
	$(BIN)python tests/notebooks/colab_rehearsal.py

clean:  ## remove .venv and build/ (not the cache of fetched files)
	rm -rf .venv build
