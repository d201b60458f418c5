"""The workloads by letter, and the contestants of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .rounds import Contestant

Packages = tuple[str, ...]
OURS: dict[str, Packages] = {
    "NumPy": (),
    "Numba": ("numba", "portablenn_numba"),
    "JAX": ("jax", "portablenn_jax"),
    "torch": ("torch", "portablenn_torch"),
}
WITHOUT_TORCH = ("NumPy", "Numba", "JAX")
PEERS = {
    "scikit-learn": ("scikit_learn", ("sklearn",), {}),
    "PyTorch eager": ("pytorch", ("torch",), {}),
    "torch.compile": ("pytorch", ("torch",), {"compiled": True}),
    "jax.jit": ("jax_jit", ("jax",), {}),
    "Keras on JAX": ("keras_on_jax", ("keras", "jax"), {}),
    "thinc": ("thinc", ("thinc",), {}),
}  # fmt: skip
THREADED = ("scikit-learn", "PyTorch eager", "jax.jit")
"""Peers that run a second time on one thread, which is their better setting on a busy machine."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


@dataclass(frozen=True)
class Workload:
    """A title and its contestants: portablenn's backends, then the peers, then the limit if there is one."""

    title: str
    contestants: tuple[Contestant, ...]


def _ours(
    maker: str, facts: dict[str, Any], names: Iterable[str] = OURS, environment: dict[str, str] | None = None
) -> list[Contestant]:
    return [
        Contestant(f"portablenn, {name}", maker, facts | {"backend": name.lower()}, OURS[name], environment or {})
        for name in names
    ]


def _classifier(letter: str, sizes: list[int], rows: int, batch: int) -> Workload:
    facts = {"sizes": sizes, "rows": rows, "batch": batch}
    theirs = [Contestant(n, f"classifiers:{maker}", facts | more, p) for n, (maker, p, more) in PEERS.items()]
    theirs += [replace(c, name=f"{c.name} (one thread)", environment=ONE_THREAD) for c in theirs if c.name in THREADED]
    limit = Contestant("limit", "classifiers:limit", facts)
    title = f"{letter} {'-'.join(map(str, sizes))}, {rows:,} rows, batch {batch}"
    return Workload(title, (*_ours("classifiers:ours", facts), *theirs, limit))


def _small(
    letter: str, title: str, kind: str, facts: dict[str, int], peers: dict[str, tuple[str, Packages]]
) -> Workload:
    double = {"JAX_ENABLE_X64": "1"}
    theirs = [Contestant(n, f"small_steps:{kind}_{maker}", facts, p, double) for n, (maker, p) in peers.items()]
    return Workload(f"{letter} {title}", (*_ours(f"small_steps:{kind}_ours", facts, WITHOUT_TORCH, double), *theirs))


def _start_up(letter: str) -> Workload:
    peers = {
        "scikit-learn": ("scikit_learn", ("sklearn",)),
        "PyTorch eager": ("pytorch", ("torch",)),
        "limit": ("nothing", ()),
    }
    theirs = [Contestant(n, "small_steps:start_up", {"kind": kind}, p) for n, (kind, p) in peers.items()]
    title = f"{letter} start-up: a new process imports, and fits 200 rows; the limit imports NumPy alone"
    return Workload(title, (*_ours("small_steps:start_up", {"kind": "ours"}, WITHOUT_TORCH), *theirs))


def _importing(letter: str) -> Workload:
    peers = {"PyTorch eager": "torch", "jax.jit": "jax", "scikit-learn": "sklearn.neural_network"}
    theirs = [
        Contestant(n, "small_steps:importing", {"statement": f"import {p}"}, (p.partition(".")[0],))
        for n, p in peers.items()
    ]
    limit = Contestant("limit", "small_steps:importing", {"statement": "import array_api_compat, numpy"})
    ours = _ours("small_steps:importing", {"statement": "import portablenn"}, ["NumPy"])
    title = f"{letter} import in a new process; the limit imports NumPy and array-api-compat"
    return Workload(title, (*ours, *theirs, limit))


def _serving(letter: str, sizes: list[int], calls: int) -> Workload:
    facts = {"sizes": sizes, "calls": calls}
    peers = {
        "portablenn, predictor": ("predictor", ()),
        "portablenn, MLPClassifier": ("estimator", ("sklearn",)),
        "scikit-learn": ("scikit_learn", ("sklearn",)),
        "PyTorch eager": ("pytorch", ("torch",)),
        "hand-written expression": ("by_hand", ()),
    }
    theirs = [Contestant(n, f"classifiers:serve_{maker}", facts, p) for n, (maker, p) in peers.items()]
    title = f"{letter} {calls:,} predictions of one row, {'-'.join(map(str, sizes))}"
    return Workload(title, (*_ours("classifiers:serve_ours", facts, ["NumPy", "Numba"]), *theirs))


def _tracing(letter: str, sizes: list[int]) -> Workload:
    """Return tracing and compiling, without Numba, which caches compiled code on disk."""
    peer = Contestant("jax.jit", "small_steps:tracing_jax", {"sizes": sizes}, ("jax",))
    title = f"{letter} a step of {'-'.join(map(str, sizes))} with Adam traced and compiled again"
    return Workload(title, (*_ours("small_steps:tracing_ours", {"sizes": sizes}, ["NumPy"]), peer))


def _estimators(letter: str, epochs: int) -> Workload:
    facts, function = {"package": "portablenn.sklearn", "epochs": epochs}, "small_steps:estimators"
    mine = [replace(c, packages=(*c.packages, "sklearn")) for c in _ours(function, facts, ["NumPy", "Numba"])]
    theirs = Contestant("scikit-learn", function, facts | {"package": "sklearn.neural_network"}, ("sklearn",))
    return Workload(f"{letter} estimators on four small data sets, {epochs} epochs", (*mine, theirs))


def _prediction(letter: str, sizes: list[int], rows: int) -> Workload:
    facts = {"sizes": sizes, "rows": rows}
    peers = {
        "scikit-learn": ("scikit_learn", "sklearn"),
        "PyTorch eager": ("pytorch", "torch"),
        "jax.jit": ("jax", "jax"),
    }
    theirs = [Contestant(n, f"classifiers:predict_{maker}", facts, (p,)) for n, (maker, p) in peers.items()]
    title = f"{letter} prediction of {'-'.join(map(str, sizes))} on {rows:,} rows"
    return Workload(title, (*_ours("classifiers:predict_ours", facts), *theirs))


WORKLOADS = {
    "A": _classifier("A", [784, 16, 16, 10], 60_000, 128),
    "B": _classifier("B", [784, 512, 512, 10], 20_000, 128),
    "C": _classifier("C", [28, 256, 256, 2], 300_000, 1024),
    "D": _classifier("D", [20, 64, 64, 2], 100_000, 200),
    "E": _small("E", "3-4-1, 60,000 full-batch steps, float64", "three_layers", {"steps": 60_000},
                {"hand-written loop": ("by_hand", ()), "jax.lax.fori_loop": ("jax", ("jax",))}),
    "F": _small("F", "3-8-1 online, 10,000 steps of one row, float64", "online", {"steps": 10_000},
                {"hand-written loop": ("by_hand", ())}),
    "G": _prediction("G", [28, 256, 256, 2], 1_000_000),
    "G1": _serving("G1", [784, 16, 16, 10], 1000),
    "H": _small("H", "1,000 fits of 200 rows with different seeds", "fits", {"fits": 1000},
                {"scikit-learn": ("scikit_learn", ("sklearn",))}),
    "H1": _start_up("H1"),
    "K": _estimators("K", 200),
    "H2": _tracing("H2", [784, 512, 512, 256, 10]),
    "H3": _importing("H3"),
}  # fmt: skip


def quick(letter: str) -> Workload:
    """Return a tiny version of a workload, only to check that it runs."""
    whole = WORKLOADS[letter]

    def smaller(arguments: dict[str, Any]) -> dict[str, Any]:
        less = {"steps": 80, "fits": 2, "epochs": 2, "calls": 2, "rows": 2 * arguments.get("batch", 500)}
        return {name: less.get(name, value) for name, value in arguments.items()}

    contestants = tuple(replace(c, arguments=smaller(c.arguments)) for c in whole.contestants)
    return Workload(f"{whole.title}, quick", contestants)
