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

.PHONY: setup demo test test-rolling test-image lint audit serve image image-gpu clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@echo "installing into $(VENV): 3 GB with PyTorch for CPUs, more with CUDA; a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) "torch==$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/python scripts/demo.py

test: setup
	$(BIN)/python -m pytest

# Two servers behind HAProxy are restarted in turn while streams speak: about half an hour on two cores.
test-rolling: setup
	ASR_ROLLING_RESTARTS=50 $(BIN)/python -m pytest -s tests/server/replicas -k rolling

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# Known vulnerabilities of what is installed, by PyPI's records; what these do not have is listed.
audit: setup
	$(BIN)/pip install --quiet pip-audit
	$(BIN)/pip-audit --skip-editable

# gRPC and metrics listen on the two ports behind PORT.
serve: setup
	exec $(BIN)/asr serve --checkpoint $(CHECKPOINT) --device $(DEVICE) --dtype $(DTYPE) \
	  --http-port $(PORT) --grpc-port $$(($(PORT) + 1)) --metrics-port $$(($(PORT) + 2))

# docker, podman or buildah; the format of the last two drops HEALTHCHECK unless told otherwise.
ENGINE ?= docker
BUILD = $(ENGINE) build $(if $(filter podman buildah,$(ENGINE)),--format docker)
# The newest whose options and Python (3.12) were looked up. Fixed by then: CVE-2025-23310, -23311,
# -23319, -23320 and -23334 (25.07), a crash when clients die with requests in flight (core #452,
# #456) and a readiness that does not notice dead models (core #461).
GPU_BASE ?= nvcr.io/nvidia/tritonserver:26.08-py3

image:
	$(BUILD) --tag nemotron-asr-triton .

image-gpu:
	$(BUILD) --build-arg BASE=$(GPU_BASE) --tag nemotron-asr-triton:gpu .

# Builds the image on a Debian of its own and runs it, without an engine. As root, with buildah,
# debootstrap and iproute2; 10 minutes on two cores, 6 GB in build/image while it lasts.
test-image: setup
	$(BIN)/python -m pytest -m image tests/image

clean:
	rm -rf $(VENV) build *.egg-info
