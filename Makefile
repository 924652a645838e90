# make repro   install into .venv and reproduce what is stale
# make tables  the papers' 25 tables on rendered people, reports/default-tables/index.html
# make test    the tests (at most 15 minutes on two cores); make test-all runs the long ones too
# make check   style, types, and that params.yaml is what its profile composes
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONPATH := $(CURDIR)

PAPERS := esa sgsfa sgam dsa sorn

.PHONY: install repro tables test test-all check clean

install: .venv/runtime
repro: install
	dvc repro
tables: install
	for paper in $(PAPERS); do python -m stages.compose tables-$$paper && dvc repro || exit 1; done
	python -m stages.compose default
test: .venv/dev
	pytest -m "not slow"
test-all: .venv/dev
	pytest
check: .venv/dev
	ruff check .
	mypy
	python -m stages.compose --check

.venv/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 install")'
	$(PYTHON) -m venv .venv
	touch $@
.venv/runtime: .venv/pip requirements.txt
	pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@
.venv/dev: .venv/runtime requirements-dev.txt
	pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv scratch
