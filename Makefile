# `make train` trains the default run, `make test` passes the tests; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test test-fast lint types format notebooks docs clean

train: $(READY)  ## trains a small ViT on scanned digits into runs/digits, and shows its result
	$(BIN)/python train.py --config=configs/digits.py --workdir=runs/digits

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n 2 -q --durations=15

test-fast: $(READY)  ## the tests that take seconds
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not golden"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# With the network off, where the system lets us: notebooks need none.
OFFLINE := $(shell unshare --map-root-user --net true 2>/dev/null && echo unshare --map-root-user --net)
DOCS := .venv/.docs-ready

notebooks: $(patsubst notebooks/%.py,build/notebooks/%.ipynb,$(wildcard notebooks/*.py))  ## executes those that changed, into build/notebooks

build/notebooks/%.ipynb: notebooks/%.py $(DOCS)
	$(OFFLINE) $(BIN)/python benchmarks/notebooks.py execute $*

docs: notebooks  ## the site, in build/site; warnings are errors
	$(BIN)/mkdocs build --strict --quiet

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs]'
	@touch $(DOCS)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vitjax needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V`. Try make PYTHON=python3.12."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv  # a second time it would change its version
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:  ## removes the virtual environment; runs stay
	rm -rf .venv
