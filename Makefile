# Everything a contributor runs. `make demo` and `make test` each start from nothing but Python 3.11, g++ and make:
# they build .venv (again only when pyproject.toml or constraints.txt changed), and the editable install rebuilds
# the C++ core at import whenever its sources changed.

ifndef PYTHON
PYTHON := $(shell command -v python3.11 || command -v python3)
endif
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
# The rebuild at import calls cmake and ninja by name.
export PATH := $(abspath $(BIN)):$(PATH)
SANITIZED := build/sanitize
# All that executes C++ on programs from bytecode or graphs; its conftest.py keeps torch out.
SANITIZE_TESTS ?= tests/core

.DEFAULT_GOAL := help
.PHONY: help demo test proof lint sanitize stubs docs docs-isa clean

help:
	@echo "make demo      train, compile and run both examples"
	@echo "make test      the test suite"
	@echo "make proof     the long checks: an hour and a half on two cores"
	@echo "make lint      ruff, mypy and the direction of imports"
	@echo "make sanitize  the tests of the C++ core under ASan and UBSan"
	@echo "make stubs     refresh the golden typed stub of the C++ core"
	@echo "make docs      the pages of docs/ as a site, in build/site"
	@echo "make docs-isa  regenerate docs/isa.md and docs/configuration.md"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -q -c constraints.txt scikit-build-core nanobind nanobind-backend cmake ninja
	$(BIN)/python -m pip install -q -q -c constraints.txt --no-build-isolation -e ".[torch,demo,test,lint]"
	touch $@

demo: $(READY)
	$(BIN)/python examples/sine_ltc.py
	$(BIN)/python examples/glucose_ncp.py --short

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile tests

# The quick ones first. Each is a target of its own; `make -k proof` goes on behind one that fails.
PROOFS := proof-tables proof-walk-through proof-replay proof-models proof-fuzz proof-faults proof-exhaustive proof-rtl-units
.PHONY: $(PROOFS)
proof: $(PROOFS)
proof-tables: $(READY)
	$(BIN)/python tests/proof/generate_tables.py --check
proof-walk-through: $(READY)
	$(BIN)/python tests/proof/walk_through.py
proof-replay: $(READY)
	$(BIN)/python tests/proof/replay.py
proof-models: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto tests/proof
proof-fuzz: $(READY)
	$(BIN)/python tests/proof/fuzz.py $(if $(MINUTES),--minutes $(MINUTES))
proof-faults: $(READY)
	$(BIN)/python tests/proof/mutate_core.py
proof-exhaustive: $(READY)
	$(BIN)/python tests/proof/exhaustive.py
proof-rtl-units: $(READY)
	$(BIN)/python tests/proof/rtl_units.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cp tests/golden/_core.pyi ltc_compiler/_core.pyi
	$(BIN)/mypy
	$(BIN)/lint-imports

# The sanitized core stands apart from the installed one; tests/support/chosen_core.py puts it in place of that, as LTC_CORE asks.
# Preloaded: what must come before Python's own allocator and exceptions.
sanitize: $(READY)
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -Dnanobind_DIR="$$($(BIN)/python -m nanobind --cmake_dir)" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DLTC_SANITIZE=ON -DLTC_WERROR=ON
	$(BIN)/cmake --build $(SANITIZED)
	LTC_CORE="$(SANITIZED)/_core.abi3.so" SKBUILD_EDITABLE_SKIP="$(abspath build/editable)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	  LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so) $$(g++ -print-file-name=libstdc++.so.6)" \
	  $(BIN)/python -m pytest -q --capture=no $(SANITIZE_TESTS)

stubs: $(READY)
	mkdir -p tests/golden
	cp "$$($(BIN)/python -c 'from ltc_compiler import _core; print(_core.__file__.rsplit("/", 1)[0])')/_core.pyi" \
	  tests/golden/_core.pyi

docs: $(READY)
	$(BIN)/python -m pip install -q -q -c constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build -q --strict

docs-isa: $(READY)
	$(BIN)/python -I ltc_compiler/isa --instructions docs/isa.md --configuration docs/configuration.md

clean:
	rm -rf $(VENV) build ltc_compiler/_core.pyi
