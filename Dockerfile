# CPU image: slim Debian, the Triton server from PyPI, the bundled checkpoint. The server listens on
# loopback, because version 2.50 lacks the security fixes of 2025: share the host's network with it.
#
#   docker build -t nemotron-asr-triton .
#   docker run --rm --network host --shm-size 2g nemotron-asr-triton
#   docker run --rm --network host --shm-size 2g -v /models/nemotron:/checkpoint:ro \
#     nemotron-asr-triton --checkpoint /checkpoint --dtype bfloat16
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 10001 asr
WORKDIR /app
RUN python -m venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1

ARG TORCH=2.13.0
# For a small image, give pip an index with PyTorch's CPU builds (PIP_INDEX_URL as a build argument).
ARG PIP_INDEX_URL
RUN pip install --no-cache-dir "torch==${TORCH}"

COPY pyproject.toml README.md LICENSE ./
COPY python_backend python_backend
COPY client client
COPY server server
RUN pip install --no-cache-dir --editable ".[serve,formats]"
COPY model_repository model_repository
COPY checkpoints/demo checkpoints/demo

USER asr
# A real inference: Triton's own health endpoints stay green when a model is dead.
HEALTHCHECK --interval=30s --timeout=25s --start-period=60s CMD ["python", "-c", \
  "import sys; from asr_server.probe import Probe; sys.exit(Probe('http://127.0.0.1:8000', 'http://127.0.0.1:8002/metrics')())"]
ENTRYPOINT ["asr", "serve"]
