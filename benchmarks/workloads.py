"""The workloads by letter, and the contestants of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .rounds import Contestant

Packages = tuple[str, ...]
OURS: dict[str, Packages] = {
    "NumPy": (),
    "Numba": ("numba", "portablenn_numba"),
    "JAX": ("jax", "portablenn_jax"),
    "torch": ("torch", "portablenn_torch"),
}
PEERS = {
    "scikit-learn": ("scikit_learn", ("sklearn",), {}),
    "PyTorch eager": ("pytorch", ("torch",), {}),
    "torch.compile": ("pytorch", ("torch",), {"compiled": True}),
    "jax.jit": ("jax_jit", ("jax",), {}),
    "Keras on JAX": ("keras_on_jax", ("keras", "jax"), {}),
    "thinc": ("thinc", ("thinc",), {}),
}  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A title and its contestants: portablenn's backends, then the peers, then the limit if there is one."""

    title: str
    contestants: tuple[Contestant, ...]


def ours(name: str) -> str:
    """Return the name of a backend of portablenn in the tables."""
    return f"portablenn, {name}"


def _classifier(letter: str, sizes: list[int], rows: int, batch: int) -> Workload:
    facts = {"sizes": sizes, "rows": rows, "batch": batch}
    all_ = [
        Contestant(ours(n), "classifiers:ours", facts | {"backend": n.lower()}, packages)
        for n, packages in OURS.items()
    ]
    all_ += [Contestant(n, f"classifiers:{maker}", facts | more, p) for n, (maker, p, more) in PEERS.items()]
    title = f"{letter} {'-'.join(map(str, sizes))}, {rows:,} rows, batch {batch}"
    return Workload(title, (*all_, Contestant("limit", "classifiers:limit", facts)))


def _small(
    letter: str, title: str, kind: str, facts: dict[str, int], peers: dict[str, tuple[str, Packages]]
) -> Workload:
    double = {"JAX_ENABLE_X64": "1"}
    some = {name: OURS[name] for name in ("NumPy", "Numba", "JAX")}
    all_ = [
        Contestant(ours(n), f"small_steps:{kind}_ours", facts | {"backend": n.lower()}, p, double)
        for n, p in some.items()
    ]
    all_ += [Contestant(n, f"small_steps:{kind}_{maker}", facts, p, double) for n, (maker, p) in peers.items()]
    return Workload(f"{letter} {title}", tuple(all_))


def _start_up(letter: str) -> Workload:
    some = {name: OURS[name] for name in ("NumPy", "Numba", "JAX")}
    all_ = [
        Contestant(ours(n), "small_steps:start_up", {"kind": "ours", "backend": n.lower()}, p) for n, p in some.items()
    ]
    peers = {
        "scikit-learn": ("scikit_learn", ("sklearn",)),
        "PyTorch eager": ("pytorch", ("torch",)),
        "limit": ("nothing", ()),
    }
    all_ += [Contestant(n, "small_steps:start_up", {"kind": k}, p) for n, (k, p) in peers.items()]
    return Workload(
        f"{letter} start-up: a new process imports, and fits 200 rows; the limit imports NumPy alone", tuple(all_)
    )


def _tracing(letter: str, sizes: list[int]) -> Workload:
    """Tracing and compiling, without Numba, which caches compiled code on disk."""
    mine = Contestant(ours("NumPy"), "small_steps:tracing_ours", {"sizes": sizes, "backend": "numpy"})
    peer = Contestant("jax.jit", "small_steps:tracing_jax", {"sizes": sizes}, ("jax",))
    return Workload(f"{letter} a step of {'-'.join(map(str, sizes))} with Adam traced and compiled again", (mine, peer))


def _estimators(letter: str, epochs: int) -> Workload:
    facts = {"package": "portablenn.sklearn", "epochs": epochs}
    all_ = [
        Contestant(ours(n), "small_steps:estimators", facts | {"backend": n.lower()}, (*OURS[n], "sklearn"))
        for n in ("NumPy", "Numba")
    ]
    theirs = Contestant(
        "scikit-learn", "small_steps:estimators", facts | {"package": "sklearn.neural_network"}, ("sklearn",)
    )
    return Workload(f"{letter} estimators on four small data sets, {epochs} epochs", (*all_, theirs))


def _prediction(letter: str, sizes: list[int], rows: int) -> Workload:
    facts = {"sizes": sizes, "rows": rows}
    all_ = [Contestant(ours(n), "classifiers:predict_ours", facts | {"backend": n.lower()}, p) for n, p in OURS.items()]
    peers = {
        "scikit-learn": ("scikit_learn", "sklearn"),
        "PyTorch eager": ("pytorch", "torch"),
        "jax.jit": ("jax", "jax"),
    }
    all_ += [Contestant(n, f"classifiers:predict_{m}", facts, (p,)) for n, (m, p) in peers.items()]
    return Workload(f"{letter} prediction of {'-'.join(map(str, sizes))} on {rows:,} rows", tuple(all_))


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
    "H": _small("H", "1,000 fits of 200 rows with different seeds", "fits", {"fits": 1000},
                {"scikit-learn": ("scikit_learn", ("sklearn",))}),
    "H1": _start_up("H1"),
    "K": _estimators("K", 200),
    "H2": _tracing("H2", [784, 512, 512, 256, 10]),
}  # fmt: skip


def quick(letter: str) -> Workload:
    """Return a tiny version of a workload, only to check that it runs."""
    few = {
        "A": _classifier("A", [784, 16, 16, 10], 512, 128),
        "B": _classifier("B", [784, 512, 512, 10], 256, 128),
        "C": _classifier("C", [28, 256, 256, 2], 2048, 1024),
        "D": _classifier("D", [20, 64, 64, 2], 400, 200),
        "G": _prediction("G", [28, 256, 256, 2], 1000),
    }
    if letter in few:
        return few[letter]
    whole = WORKLOADS[letter]
    less = {"steps": 80, "fits": 2, "epochs": 2}
    contestants = tuple(
        replace(c, arguments={k: less.get(k, v) for k, v in c.arguments.items()}) for c in whole.contestants
    )
    return Workload(f"{whole.title}, quick", contestants)
