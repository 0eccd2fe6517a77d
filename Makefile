# `make demo` and `make test` set everything up on a machine that has Python 3.11 or newer, pip and make.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint coverage clean

demo: .venv/ready
	$(BIN)/img2prompt-cache demo --overwrite

test: .venv/ready
	$(BIN)/pytest $(PYTEST_FLAGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy img2prompt_cache cli

coverage: .venv/ready
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered $(PYTEST_FLAGS)

# Without a GPU the CPU build of torch is a tenth of the size, where the index of PyTorch can be reached.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	command -v nvidia-smi >/dev/null 2>&1 \
	|| $(BIN)/pip install --retries 0 --timeout 15 torch torchvision --index-url https://download.pytorch.org/whl/cpu \
	|| echo "the CPU build of torch is not to be had; taking the package index's own"
	$(BIN)/pip install -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
