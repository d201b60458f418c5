#!/usr/bin/env bash
# benchmarks/on_gpu.sh without a GPU: on the stand-in for CuPy of the tests, under the same limits, with parts that fail.
#   FAULTS="PART=KIND[:LAUNCH] ..." bash benchmarks/rehearse.sh FOLDER [PART ...]
# KIND is hang, crash, memory or orphan, at the LAUNCH-th launch of a kernel (20th): see tests/helpers/fake_cupy.py.
set -uo pipefail
cd "$(dirname "$0")/.."
echo "This is a rehearsal: no GPU was involved, and no time below says anything about one. Faults: ${FAULTS:-none}."
export FAKE_CUPY_FAULTS=${FAULTS:-} QUICK=1 WORKERS=${WORKERS:-2} CUDA_VISIBLE_DEVICES=
export PYTHONPATH="$PWD/tests/helpers/rehearsal:$PWD/tests/helpers${PYTHONPATH:+:$PYTHONPATH}"
exec bash benchmarks/on_gpu.sh "$@"
