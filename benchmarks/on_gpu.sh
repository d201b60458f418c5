#!/usr/bin/env bash
# Everything that needs a CUDA GPU, in a checkout, in under ten minutes and without a network: the tests with CuPy
# required and with torch and JAX on the GPU, "portablenn verify", and a first benchmark. Results are written to
# benchmarks/results/ (or to the folder given as the first argument), as JSON and as tables.
# Python needs numpy, array-api-compat, array-api-strict, pytest, hypothesis, typer, rich and CuPy; torch and JAX are optional.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results}
mkdir -p "$out"
python=${PYTHON:-python3}
"$python" -c 'import cupy; assert cupy.is_available()' || { echo "this needs CuPy and a CUDA GPU: see nvidia-smi"; exit 1; }
sites=$(mktemp -d)
trap 'rm -rf "$sites"' EXIT

# Write the plug-ins' entry points, as an installer would, without building anything.
"$python" - "$sites" <<'PY' || exit 1
import importlib.util, pathlib, sys, tomllib
for folder in sorted(pathlib.Path("backends").iterdir()):
    project = folder / "pyproject.toml"
    if not project.is_file() or importlib.util.find_spec(folder.name) is None:
        continue
    facts = tomllib.loads(project.read_text())["project"]
    info = pathlib.Path(sys.argv[1]) / f"{facts['name'].replace('-', '_')}-{facts['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {facts['name']}\nVersion: {facts['version']}\n")
    points = "".join(f"{k} = {v}\n" for k, v in facts["entry-points"]["portablenn.backends"].items())
    (info / "entry_points.txt").write_text(f"[portablenn.backends]\n{points}")
PY
PYTHONPATH="$PWD:$sites:$(printf '%s:' "$PWD"/backends/*/)${PYTHONPATH:-}"
export PYTHONPATH XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_ENABLE_X64=1 PYTHONUNBUFFERED=1
export PORTABLENN_GPU=1 # the tests also take CuPy, and torch and JAX on the GPU
status=0

echo "== backends"
timeout 30 "$python" -m portablenn backends | tee "$out/backends.txt" || status=1
echo "== verify"
timeout 75 "$python" -m portablenn verify --json >"$out/verify.json" || status=1
cat "$out/verify.json"
echo "== tests"
required=$("$python" -c 'import importlib.util as u; print(",".join(n for n in ("cupy", "torch", "jax") if n == "cupy" or u.find_spec(n)))')
workers=$("$python" -c 'import importlib.util as u; print("-n 8" if u.find_spec("xdist") else "")')
# shellcheck disable=SC2086
PORTABLENN_REQUIRE=$required timeout "${TEST_SECONDS:-240}" "$python" -m pytest -q --maxfail=40 -p no:cacheprovider $workers \
    tests/testing/test_conformance.py tests/backends/test_cupy.py tests 2>&1 | tail -n 150 | tee "$out/tests.txt" || status=1
echo "== benchmark"
timeout 235 "$python" -m benchmarks.gpu --out "$out" --seconds "${BENCH_SECONDS:-120}" || status=1
exit $status
