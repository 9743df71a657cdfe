# `make train` trains the default run, `make test` passes the tests; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test test-fast lint types format clean

train: $(READY)  ## trains a small ViT on scanned digits into runs/digits, and shows its result
	$(BIN)/python train.py --config=configs/digits.py --workdir=runs/digits

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n 2 -q --durations=15

test-fast: $(READY)  ## the tests that take seconds
	$(BIN)/python -m pytest -n 2 -q -m "not slow"

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vitjax needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V`. Try make PYTHON=python3.12."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv  # a second time it would change its version
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(READY)

clean:  ## removes the virtual environment; runs stay
	rm -rf .venv
