#!/usr/bin/env bash
# Everything that has to be seen on a GPU, in stages of at most eight minutes, without internet.
#
#   benchmarks/gpu.sh OUT [STAGE...]    stages: tests chunk capacity80 capacity1120 offline profile
#
# The torch of PYTHON is used as it is. What else is missing comes from wheels in WHEELS, a folder
# (nvidia-pytriton, tritonclient, numpy<2, soxr, ...; see README.md), into an environment of its own.
# Each stage leaves OUT/<stage>.json, and its messages in OUT/log; one that fails stops nothing.
set -uo pipefail
OUT=$(mkdir -p "$1" && cd "$1" && pwd) || exit 2
shift
cd "$(dirname "$0")/.." || exit 2
STAGES=${*:-tests chunk capacity80 capacity1120 offline profile}

PYTHON=${PYTHON:-python3}     # with torch 2.11 or later
WHEELS=${WHEELS:-}            # a folder of wheels, or none where nothing is missing
DEVICE=${DEVICE:-cuda}
DTYPE=${DTYPE:-bfloat16}
CHECKPOINT=${CHECKPOINT:-}    # a directory; random weights of the published sizes where not given
STAGE_S=${STAGE_S:-480}
QUICK=${QUICK:-}              # 1: small settings, to try the stages themselves, on a CPU too
ENVIRONMENT=${ENVIRONMENT:-build/gpu-env}

prepare() {  # a venv that sees PYTHON's packages behind its own, and this checkout
  [ -x "$ENVIRONMENT/bin/python" ] && return
  "$PYTHON" -m venv --without-pip "$ENVIRONMENT" || return
  local site parent
  site=$("$ENVIRONMENT/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  parent=$("$PYTHON" -c 'import site, sys; print("\n".join(p for p in sys.path if "-packages" in p))')
  printf '%s\n' "$PWD"/{python_backend,client,server,benchmarks} $parent >"$site/checkout.pth"
  if [ -n "$WHEELS" ]; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl
  fi
}

bench() {
  local main='from asr_client.cli import main; main(prog_name="asr")'
  "$ENVIRONMENT/bin/python" -c "$main" bench "$@" --device "$DEVICE" --dtype "$DTYPE" \
    ${CHECKPOINT:+--checkpoint "$CHECKPOINT"}
}

tests() {  # the report of pytest instead of a benchmark's
  "$ENVIRONMENT/bin/python" -m pytest -q -m gpu -p no:cacheprovider
  local status=$?
  printf '{"benchmark": "tests", "exit_status": %d}\n' "$status" >"$OUT/tests.json"
  return "$status"
}

chunk() {
  if [ "$QUICK" ]; then
    bench chunk --lookahead 3 --batch 2 --repeats 2 --no-transformers --json "$OUT/chunk.json"
  else
    bench chunk --batch 1 --batch 8 --batch 32 --batch 128 --repeats 20 --json "$OUT/chunk.json"
  fi
}

capacity() {  # LATENCY_MS FIRST MOST
  local size=(--first "$2" --most "$3" --generators 8 --probe-s 10 --duration-s 120)
  [ "$QUICK" ] && size=(--first 2 --most 4 --probe-s 3 --duration-s 5)
  bench capacity --latency-ms "$1" "${size[@]}" --json "$OUT/capacity$1.json"
}
capacity80() { capacity 80 128 2048; }
capacity1120() { capacity 1120 512 8192; }

offline() {
  local cases=()
  [ "$QUICK" ] && cases=(--case "10 s" --no-transformers)
  bench offline "${cases[@]}" --json "$OUT/offline.json"
}

profile() {
  local batch=64
  [ "$QUICK" ] && batch=2
  bench profile --latency-ms 80 --batch "$batch" --json "$OUT/profile.json"
}

run() {  # one stage in a shell of its own, so that it can be ended with all that it started
  echo "=== $1 ($(date -u +%H:%M:%S))"
  export -f bench tests chunk capacity capacity80 capacity1120 offline profile
  export OUT DEVICE DTYPE CHECKPOINT QUICK ENVIRONMENT
  timeout --kill-after=20 "$STAGE_S" bash -c "$1"
  echo "=== $1 ended with status $?"
}

{
  prepare || exit
  "$ENVIRONMENT/bin/python" -c 'import torch; print("torch", torch.__version__, torch.cuda.is_available())'
  for stage in $STAGES; do run "$stage"; done
} 2>&1 | tee -a "$OUT/log"
