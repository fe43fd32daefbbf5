# Idle OpenMP threads sleep instead of spinning, which would starve whoever shares the cores.
export OMP_WAIT_POLICY ?= PASSIVE

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc vaefast kernels bench -type f -not -name '*.pyc' -not -name '*.so' -not -path '*/results/*')

.PHONY: demo test lint format develop bench clean

demo: $(VENV)/installed  ## train a small VAE on real digits, audit it, write report/
	$(BIN)/vaefast audit --data digits --out report --force

test: $(VENV)/installed  ## the whole suite, then the Triton kernels in their interpreter
	$(BIN)/pytest -q tests
	TRITON_INTERPRET=1 VAEFAST_REQUIRE=triton $(BIN)/pytest -q tests/ops --backend triton

lint: $(VENV)/installed  ## ruff, mypy and clang-format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy vaefast
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i csrc/*.h csrc/*.cpp

bench: $(VENV)/installed  ## the benchmark tables of README.md
	env -u OMP_WAIT_POLICY $(BIN)/vaefast bench pgd_step

develop: $(VENV)/torch  ## an editable install: Python edits count at once, C++ edits after `make develop`
	$(BIN)/pip install -e '.[all,test]'

$(VENV)/torch:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install '$(TORCH)'
	touch $@

$(VENV)/installed: $(VENV)/torch $(SOURCES)
	rm -rf build
	$(BIN)/pip install '.[all,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist report *.egg-info
