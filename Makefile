# Idle OpenMP threads sleep instead of spinning, which would starve whoever shares the cores.
export OMP_WAIT_POLICY ?= PASSIVE

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := setup.py pyproject.toml $(shell find csrc vaefast kernels bench -type f -not -name '*.pyc' -not -name '*.so' -not -path '*/results/*')

.PHONY: demo test proofs soundness chaos integrations kernels kernels-if-changed lint format develop bench sanitize clean

demo: $(VENV)/installed  ## train a small VAE on real digits, audit it, write report/
	$(BIN)/vaefast audit --data digits --out report --force

test: $(VENV)/installed  ## all but long proofs, also in Triton's interpreter: minutes on two cores
	$(BIN)/python .ci/stages.py test

proofs: $(VENV)/provable  ## the tests marked `proof`: calibration, soundness, chaos, fuzz in full
	$(BIN)/python .ci/stages.py proofs

soundness: $(VENV)/installed  ## certificates attacked and their levels tested, in full: most of an hour on two cores
	$(BIN)/python .ci/stages.py soundness

integrations: $(VENV)/integrated  ## our classes inside other libraries against the libraries' own; `make test` skips them
	$(BIN)/python -I -m pytest -q tests/integrations

chaos: $(VENV)/installed  ## runs in shards under 20 kills and a disk that fills: minutes
	$(BIN)/python .ci/stages.py chaos

BINARIES = cd docs && $(abspath $(BIN))/python -m vaefast.kernels.proof
ifdef TRITON
kernels: export PYTHONPATH := $(CURDIR)/.triton/$(TRITON)
kernels: $(VENV)/installed .triton/$(TRITON)  ## with TRITON=3.6.0: proof by that version, and what differs
	$(BINARIES).survey
	$(BIN)/pytest -q -m binaries tests/kernels/test_binaries.py
	$(BINARIES).table --compare kernels.md
else
kernels: $(VENV)/installed  ## compile and prove all binaries, write docs/kernels.md; goes on where it was stopped
	$(BINARIES).survey
	$(BIN)/pytest -q -m binaries tests/kernels/test_binaries.py
	$(BINARIES).table kernels.md
endif

kernels-if-changed: $(VENV)/installed  ## the same where docs/kernels.md is not of today's sources and triton
	($(BINARIES).table --check kernels.md) || $(MAKE) kernels

.triton/%: $(VENV)/torch
	$(BIN)/pip install -q --no-deps --target $@ triton==$*

lint: $(VENV)/installed  ## ruff, mypy and clang-format, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy vaefast
	$(BIN)/clang-format --dry-run --Werror $(shell find csrc -name "*.h" -o -name "*.cpp")

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(shell find csrc -name "*.h" -o -name "*.cpp")

bench: $(VENV)/installed  ## the benchmark tables of README.md
	env -u OMP_WAIT_POLICY $(BIN)/vaefast bench pgd_step

SANITIZER := $(addprefix -print-file-name=,libasan.so libubsan.so)
SANITIZED = cd .sanitize && PYTHONPATH=$(CURDIR)/.sanitize VAEFAST_REQUIRE=cpp \
	LD_PRELOAD="$(foreach library,$(SANITIZER),$$($(CXX) $(library)))" ASAN_OPTIONS=detect_leaks=0 \
	$(abspath $(BIN))/python -m pytest -q --capture=sys -p no:cacheprovider -c ../pyproject.toml

sanitize: $(VENV)/installed  ## the op tests on the C++ backend, built with ASan and UBSan
	rm -rf build .sanitize
	VAEFAST_SANITIZE=1 VAEFAST_STRICT_BUILD=1 $(BIN)/pip install -q --no-deps --target .sanitize .
	rm -rf build
	$(SANITIZED) ../tests/ops --backend cpp
	$(SANITIZED) $(addprefix ../tests/ops/test_,fuzz.py packing.py signals.py same_bits.py error_rule.py)
	$(SANITIZED) ../tests/kernels/test_math.py ../tests/test_philox.py

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

$(VENV)/provable: $(VENV)/installed  ## the samplers of others that proofs compare with
	$(BIN)/pip install 'vaefast[proofs]'
	touch $@

$(VENV)/integrated: $(VENV)/installed  ## the libraries that vaefast.integrations has classes for
	$(BIN)/pip install 'vaefast[integrations]' cleverhans
	touch $@

clean:
	rm -rf $(VENV) .sanitize .triton build dist report *.egg-info
