PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test bench oracles screenshots clean

run: .venv/app
	$(BIN)/streamlit run app.py --server.headless=false --server.showEmailPrompt=false

test: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

bench: .venv/test
	$(BIN)/python -m benchmarks

oracles: .venv/test
	NORMCORE_ORACLES=explorer/measured/oracles.json $(BIN)/pytest tests/oracles tests/laws/test_clipper.py

screenshots: .venv/test
	$(BIN)/python -m benchmarks.screenshots

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "normcore needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv

.venv/app: requirements.txt | .venv/bin/python
	$(BIN)/pip install -q -r requirements.txt
	touch $@

.venv/test: requirements.txt tests/requirements.txt | .venv/bin/python
	$(BIN)/pip install -q -r tests/requirements.txt
	touch .venv/app $@
