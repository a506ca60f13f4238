# The image of server and gateway. What differs between CPU and GPU follows from the base:
#
#   make image        slim Debian, the Triton server from PyPI, PyTorch for CPUs
#   make image-gpu    NVIDIA's Triton (BASE=nvcr.io/nvidia/tritonserver:...), PyTorch for CUDA
#
#   docker run --rm --read-only --tmpfs /tmp --shm-size 2g --cap-drop ALL \
#     -p 127.0.0.1:8080:8080 -p 127.0.0.1:50051:50051 nemotron-asr-triton
#
# Triton listens on loopback inside; the gateway's two ports are all that is exposed. Another model is
# mounted at /checkpoint (-v /models/nemotron:/checkpoint:ro) or baked in (--build-arg CHECKPOINT=...).
# Arguments go to `asr serve`, its options also as variables (-e ASR_DTYPE=bfloat16).
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS base
# Stable releases drop old versions of packages: a pinned one would not be found soon.
# The wheel's server is started with the Python of the system, whose library it wants; NVIDIA's
# image has it. tini is process 1: it reaps what is orphaned, and passes SIGTERM on from the start.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 tini \
 && if [ ! -d /opt/tritonserver ]; then \
      apt-get install --yes --no-install-recommends libpython3.11; \
    fi \
 && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin asr


FROM base AS dependencies
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/asr
WORKDIR /build
# The newest PyTorch whose CPU build was tested; 2.11 or later works.
ARG TORCH=2.13.0
# Where PyTorch comes from; empty: from where pip takes all else. Without it: PyTorch's index of CPU
# builds, as those on PyPI are for CUDA and carry several GB; on a GPU base PyPI.
ARG TORCH_INDEX_URL
# Those of pyproject.toml. `formats` carries FFmpeg with x264 and x265 under GPL 2: leave it out
# where the image is given to others under other terms.
ARG EXTRAS=gateway,vad,traces,formats
# Made for an empty project of the same name, so that code may change without installing all again.
# The secret is a pip.conf, for those with an index of their own.
COPY pyproject.toml LICENSE ./
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    if [ -d /opt/tritonserver ]; then server=client; index=; \
    else server=serve; index=https://download.pytorch.org/whl/cpu; fi \
 && index="${TORCH_INDEX_URL-$index}" \
 && pip="/opt/pip/bin/pip --python /opt/asr/bin/python --no-cache-dir" \
 && mkdir python_backend client server benchmarks && touch README.md \
 && $pip install ${index:+--index-url "$index"} "torch==${TORCH}" \
 && $pip install ".[${server},${EXTRAS}]" \
 && $pip uninstall --yes nemotron-asr-triton \
 # what only compilers and tests read
 && rm -rf /opt/asr/lib/python3*/site-packages/torch/include \
 && find /opt/asr -type d -name tests -prune -exec rm -rf {} +


FROM dependencies AS project
COPY python_backend python_backend
COPY client client
COPY server server
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /opt/pip/bin/pip --python /opt/asr/bin/python --no-cache-dir \
      install --no-deps --prefix /project .


FROM base
COPY --from=dependencies /opt/asr /opt/asr
COPY --from=project /project /opt/asr
COPY model_repository /opt/asr/model_repository
# Weights are often saved for their owner's eyes alone.
ARG CHECKPOINT=checkpoints/demo
COPY --chown=10001:10001 ${CHECKPOINT} /checkpoint
RUN --mount=type=bind,source=scripts/sbom.py,target=/run/sbom.py \
    mkdir /usr/share/sbom \
 && /opt/asr/bin/python /run/sbom.py nemotron-asr-triton > /usr/share/sbom/asr.cdx.json

# Nothing is downloaded at run time, and nothing is written but in /tmp and /dev/shm.
ENV PATH=/opt/asr/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    ASR_MODEL_REPOSITORY=/opt/asr/model_repository \
    ASR_CHECKPOINT=/checkpoint \
    ASR_GATEWAY=1 \
    ASR_GATEWAY_HOST=0.0.0.0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 50051
# Live streams get 30 s to end (ASR_DRAIN_TIMEOUT_S): give `docker stop` 45.
STOPSIGNAL SIGTERM
# A real inference: Triton's own endpoints stay green when a model is dead.
HEALTHCHECK --interval=30s --timeout=30s --start-period=120s \
  CMD ["python", "-m", "asr_server.health"]
ENTRYPOINT ["tini", "--", "asr", "serve"]
