# Two commands are enough: `make demo`, `make test`. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test chromium check bench clean

# The venv is made without pip and filled by the caller's: Debian's Python has pip but may lack ensurepip.
.venv/bin/python:
	$(PYTHON) -m venv --without-pip .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip --editable .
	touch $@

.venv/.installed-test: pyproject.toml | .venv/bin/python
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check pip --editable ".[test]"
	touch .venv/.installed $@

install: .venv/.installed

demo: install
	$(BIN)/saxs-pipeline run sample_data/run.yaml

# Two processes; the tests of a file stay together and share what they set up, the longest files first (conftest.py).
# Compiled code is kept even where the environment forbids it: the tests start hundreds of processes.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: .venv/.installed-test chromium
	$(PYTEST)

# Debian's Chromium for the tests of the live page; where it cannot be had they skip, and say so.
chromium:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || { test "$$(id -u)" = 0 && \
	  command -v apt-get >/dev/null && apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 || \
	  echo "Chromium is not installed: the browser tests will skip"

check: .venv/.installed-test chromium
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: .venv/.installed-test
	$(BIN)/python benchmarks/end_to_end.py
	$(BIN)/python benchmarks/integration.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/accuracy.py
	$(BIN)/python benchmarks/fits.py
	$(BIN)/python benchmarks/fit_statistics.py
	$(BIN)/python benchmarks/sizes.py
	$(BIN)/python benchmarks/kinetics.py
	$(BIN)/python benchmarks/kinetic_fit.py 20
	$(BIN)/python benchmarks/circle.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/scaling.py

clean:
	rm -rf .venv sample_data/results
