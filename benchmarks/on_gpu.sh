#!/usr/bin/env bash
# Everything that needs a CUDA GPU, in a checkout, in ten to twenty minutes and without a network. Each part is a process of its
# own with its own limit in seconds, and writes its results at once, so that a part that hangs or crashes costs only itself.
#   bash benchmarks/on_gpu.sh [FOLDER [PART ...]]
# Results go to FOLDER (benchmarks/results/gpu): of each part what it printed, and a line in parts.jsonl. Python needs numpy,
# array-api-compat, array-api-strict, pytest, hypothesis, typer, rich and CuPy; torch, JAX, pytest-xdist and compute-sanitizer
# are used where they are. QUICK=1: benchmarks of few rows; ON_GPU_LIMIT: no part
# gets more seconds. benchmarks/rehearse.sh runs it without a GPU.
set -uo pipefail
ulimit -c 0 # no core files
cd "$(dirname "$0")/.."
out=${1:-benchmarks/results/gpu}
(($# == 0)) || shift
all="versions smoke memcheck racecheck benchmark tf32 bfloat16 kernels ensembles verify cupy others more"
parts=${*:-$all}
for name in $parts; do
    [[ " $all " == *" $name "* ]] || { echo "unknown part $name; expected some of: $all" >&2; exit 2; }
done
mkdir -p "$out"
python=${PYTHON:-python3}
quick=${QUICK:+--quick}
members=$([[ -n ${QUICK:-} ]] && echo 4 || echo 64 1000)
sites=$(mktemp -d)
summary=()
finish() {
    rm -rf "$sites"
    ((${#summary[@]} == 0)) || printf '%s\n' "" "== summary" "${summary[@]}"
}
trap finish EXIT
trap 'exit 130' INT TERM

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
export PYTHONPATH XLA_PYTHON_CLIENT_PREALLOCATE=false JAX_ENABLE_X64=1 PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
export PORTABLENN_GPU=1 # the tests also take CuPy, and torch and JAX on the GPU
status=0

has() { "$python" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"; }

# report NAME OUTCOME SECONDS LIMIT STATUS: for people, and at once for programs.
report() {
    echo "== $1: $2 after $3 s of $4 s"
    summary+=("$(printf '%-10s %4s s of %4s s  %s' "$1" "$3" "$4" "$2")")
    printf '{"part": "%s", "outcome": "%s", "seconds": %s, "limit": %s, "status": %s}\n' "$@" >>"$out/parts.jsonl"
}

# part NAME SECONDS COMMAND...: run it unless it was not asked for; its output is shown and kept. At the limit it gets SIGABRT, at
# which Python says where it hangs, or the signal $signal: after SIGINT pytest prints its summary (and pytest-xdist waits up to
# 10 s for workers that hang), but a network that trains only ends its training.
# The output goes to a file, not through a pipe: a pipe stays open while any process that the part left behind has it.
part() {
    local name=$1 limit=$2 start=$SECONDS code outcome viewer
    ((limit < ${ON_GPU_LIMIT:-limit})) || limit=${ON_GPU_LIMIT:-$limit}
    shift 2
    [[ " $parts " == *" $name "* ]] || return 0
    echo "== $name"
    : >"$out/$name.txt"
    tail -n +1 -f -s 0.2 --pid=$$ "$out/$name.txt" &
    viewer=$!
    ON_GPU_PART=$name timeout --signal="${signal:-ABRT}" --kill-after=20 "$limit" "$@" >>"$out/$name.txt" 2>&1
    code=$?
    sleep 0.5 # until all of it is shown
    kill "$viewer" && wait "$viewer" 2>/dev/null
    case $code in
        0) outcome=passed ;;
        124) outcome="interrupted at its limit" ;;
        137) outcome="killed: it did not end at its limit" ;;
        *) if ((code > 128)); then outcome="crashed by signal $((code - 128))"; else outcome=failed; fi ;;
    esac
    report "$name" "$outcome" $((SECONDS - start)) "$limit" "$code"
    ((code == 0)) || status=1
}

tests() {
    local chosen=$1 required=$2 workers=""
    has xdist && workers="-n ${WORKERS:-14}"
    # shellcheck disable=SC2086
    PORTABLENN_REQUIRE=$required PYTHONWARNINGS=ignore exec "$python" -m pytest -q -rfE --maxfail=60 -W default -p no:cacheprovider $workers \
        -o faulthandler_timeout=60 -k "$chosen" --ignore tests/backends/test_cupy.py --ignore tests/backends/test_cupy_rehearsal.py tests
}
export -f tests has
export python

if ! sanitizer=$(command -v compute-sanitizer); then
    for name in memcheck racecheck; do
        [[ " $parts " == *" $name "* ]] && report "$name" "not run: compute-sanitizer is not here" 0 0 null
        parts=${parts/$name/}
    done
fi
small=("$python" -m benchmarks.gpu_smoke --few --out)
part versions 20 "$python" -m portablenn backends
part smoke 90 "$python" -m benchmarks.gpu_smoke --out "$out/smoke.json"
part memcheck 45 "${sanitizer:-compute-sanitizer}" --tool memcheck --error-exitcode 9 "${small[@]}" "$out/memcheck.json"
part racecheck 45 "${sanitizer:-compute-sanitizer}" --tool racecheck --error-exitcode 9 "${small[@]}" "$out/racecheck.json"
part benchmark 150 "$python" -m benchmarks.gpu $quick --out "$out/benchmark" --only "A 128" "D 200" "I 8192" "B 128" "B 8192" --seconds 120
for precision in tf32 bfloat16; do
    part "$precision" 60 "$python" -m benchmarks.gpu $quick --out "$out/$precision" --precision "$precision" --only "I 8192" "B 8192" --seconds 40
done
part kernels 40 "$python" -m benchmarks.gpu_kernels --out "$out/kernels.json"
# shellcheck disable=SC2086
part ensembles 90 "$python" -m benchmarks.ensembles --device cuda --members $members --rounds 3 \
    --only "20-64-64-2, batch 200" --out "$out/ensembles.json"
part verify 60 "$python" -m portablenn verify cupy --json
signal=INT part cupy 200 bash -c 'tests "cupy" cupy'
# JAX chooses kernels by timing them anew in each process, and with them the last bits, which a resumed run would not have
signal=INT part others 150 env XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_autotune_level=0" bash -c 'tests "torch:cuda or jax:cuda" torch,jax'
part more 120 "$python" -m benchmarks.gpu $quick --out "$out/more" --contestants more --only "A 128" "B 8192" --seconds 60
exit $status
