# syntax=docker/dockerfile:1
# CPU image: slim Debian with the Triton server from PyPI. Triton listens on loopback inside the
# container unless told otherwise, because server 2.50 lacks the security fixes of 2025:
#
#   docker build -t nemotron-asr-triton .
#   docker run --rm --network host --shm-size 1g nemotron-asr-triton
#   docker run --rm --network host --shm-size 1g -v /models/nemotron:/checkpoint:ro \
#     -e ASR_CHECKPOINT=/checkpoint nemotron-asr-triton
FROM python:3.11-slim-bookworm

# The server's own libraries; libsndfile comes with its wheel.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libb64-0d libnuma1 libxml2 \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 asr
WORKDIR /app
RUN python -m venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH

ARG TORCH=2.13.0
RUN pip install --no-cache-dir "torch==${TORCH}"

COPY pyproject.toml README.md LICENSE ./
COPY python_backend python_backend
COPY client client
COPY server server
RUN pip install --no-cache-dir --editable ".[serve]"
COPY model_repository model_repository
COPY checkpoints/demo checkpoints/demo

USER asr
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
  CMD ["python", "-c", "import httpx; httpx.get('http://127.0.0.1:8000/v2/health/ready').raise_for_status()"]
ENTRYPOINT ["asr", "serve"]
