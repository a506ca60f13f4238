# Each target is one or two lines that a person can run by hand.
PYTHON ?= python3
# The newest torch whose CPU build was tested; a GPU user may choose another, 2.11 or later.
TORCH ?= 2.13.0
VENV := .venv
BIN := $(VENV)/bin

CHECKPOINT ?= checkpoints/demo
DEVICE ?= auto
DTYPE ?= float32
PORT ?= 8000

.PHONY: setup demo test lint serve image clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV): 1.5 GB, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# gRPC and metrics listen on the two ports behind PORT.
serve: setup
	exec $(BIN)/asr serve --checkpoint $(CHECKPOINT) --device $(DEVICE) --dtype $(DTYPE) \
	  --http-port $(PORT) --grpc-port $$(($(PORT) + 1)) --metrics-port $$(($(PORT) + 2))

image:
	docker build --tag nemotron-asr-triton .

clean:
	rm -rf $(VENV) build *.egg-info
