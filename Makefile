# `make demo` and `make test` set everything up on a machine that has Python 3.11 or newer, pip and make.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint coverage clean

demo: .venv/ready
	$(BIN)/img2prompt-cache demo --overwrite

# One thread a worker: the tests' models are tiny, and threads that wait for each other cost more than they bring.
test: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 $(PYTEST_FLAGS)

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy img2prompt_cache cli

coverage: .venv/ready
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --cov --cov-report=term-missing:skip-covered $(PYTEST_FLAGS)

# Without a GPU the CPU build of torch is much smaller, where PyTorch's own index can be reached; only
# that index is asked, so that torch and torchvision come as a pair.
.venv/ready: pyproject.toml
	$(PYTHON) -m venv .venv
	command -v nvidia-smi >/dev/null 2>&1 \
	|| PIP_CONFIG_FILE=/dev/null $(BIN)/pip install --quiet --retries 0 --timeout 15 \
	   --index-url https://download.pytorch.org/whl/cpu torch torchvision \
	|| echo "PyTorch's index of CPU builds does not answer; taking torch from the package index"
	$(BIN)/pip install --quiet -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
