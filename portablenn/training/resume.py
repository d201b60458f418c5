"""Resuming: everything that the rest of a run depends on, as a checkpoint holds it.

A run that goes on from a checkpoint ends in the same bits, on the same backend, as one that was never interrupted.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.sources import BatchStream, Blocks
from ..files import checkpoint
from ..files.checkpoint import Snapshot
from ..files.safetensors_file import FileFormatError
from ..nn.lbfgs import Search
from ..nn.model import State
from ..runtime.arrays import is_array, to_numpy
from ..version import __version__
from .state import Run, TrainState

FINGERPRINT_SIZE, FINGERPRINT_ROWS = 1 << 20, 1000
"""Elements of an array up to which the fingerprint covers all; of a larger array it covers this number of rows."""


@dataclass(frozen=True)
class CallbackState:
    """The state of a callback: facts that JSON can express, and arrays."""

    kind: str
    facts: dict[str, Any]
    arrays: dict[str, Any]

    @classmethod
    def of(cls, callback: Any) -> CallbackState:
        """Ask a callback for its state."""
        get = getattr(callback, "state_dict", None)
        state = get() if callable(get) else {}
        state = {k: v.item() if isinstance(v, np.generic) else v for k, v in state.items()}
        facts = {k: v for k, v in state.items() if not is_array(v)}
        return cls(type(callback).__name__, facts, {k: v for k, v in state.items() if is_array(v)})

    @property
    def empty(self) -> bool:
        """Whether there is nothing to restore."""
        return not self.facts and not self.arrays


@dataclass(frozen=True)
class RunState:
    """A run at one moment."""

    train_state: TrainState
    epoch: int
    evaluations: int
    losses: list[tuple[Any, int]]
    history: dict[str, list[float]]
    labels: tuple[int, int]
    multilabel: bool
    ended: str
    interrupted: bool
    optimizer: dict[str, Any]
    callbacks: list[CallbackState]


def snapshot(run: Run) -> Snapshot:
    """Return the state of a run as a checkpoint holds it.

    Raises
    ------
    TypeError
        If the state of a callback holds something that is neither an array nor JSON.
    """
    network = run.network
    losses = [(run.backend.to_numpy(some).astype(np.float64), rows) for some, rows in run.losses]
    found = RunState(
        run.train_state,
        run.epoch,
        run.evaluations,
        losses,
        dict(run.history),
        network.labels,
        network.multilabel,
        run.ended,
        run.interrupted,
        checkpoint.describe(network.optimizer),
        [CallbackState.of(callback) for callback in run.callbacks],
    )
    facts, arrays = _encode(found)
    return Snapshot(facts | {"about": about(run), "versions": versions(run.backend)}, arrays)


def restore(run: Run, snapshot: Snapshot) -> None:
    """Go to the state of a snapshot; nothing is changed before everything is checked.

    Raises
    ------
    ValueError
        If it belongs to another network, other data or other settings.
    FileFormatError
        If something is missing in it.
    """
    network = run.network
    try:
        _check_same_run(run, snapshot.facts)
        found = _decode(run, snapshot)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"the checkpoint does not have the expected content: {error!r}") from None
    if found.epoch > run.epochs or (found.epoch == run.epochs and found.train_state.steps_done):
        raise ValueError(
            f"the checkpoint was written after {found.epoch} epochs and {found.train_state.steps_done} steps, and epochs="
            f"{run.epochs} is the total number: pass a larger one"
        )
    run.train_state, run.epoch, run.losses, run.evaluations = (
        found.train_state, found.epoch, found.losses, found.evaluations,
    )  # fmt: skip
    run.history.update(found.history)
    run.history.evaluations, run.history.resumed = found.evaluations, found.train_state.steps
    network.state, network.epochs, network.steps = found.train_state[:3]
    network.labels, network.multilabel = found.labels, found.multilabel
    if found.ended and not found.interrupted:
        run.ended = found.ended
    if isinstance(run.data.x, BatchStream):
        run.data.x.skip(found.epoch)


def restore_callbacks(run: Run, snapshot: Snapshot) -> None:
    """Give each callback the state of one of its class, in their order; one may end the run at once.

    Raises
    ------
    ValueError
        If the state of a callback would be lost, or an optimizer that one had put in place.
    """
    left = _decode_callbacks(snapshot)
    for callback in run.callbacks:
        match = next((state for state in left if state.kind == type(callback).__name__), None)
        if match is None:
            continue
        left.remove(match)
        if not match.empty:
            run.ended = callback.load_state_dict(match.facts | match.arrays) or run.ended
    lost = [state.kind for state in left if not state.empty]
    if lost:
        raise ValueError(
            f"the checkpoint has the state of {', '.join(lost)}, and this fit has no such callback: pass it as before"
        )
    now, before = checkpoint.describe(run.network.optimizer), snapshot.facts["optimizer"]
    if now != before:
        raise ValueError(
            f"the checkpoint was written with the optimizer {before}, and now it is {now}: a callback that replaces the "
            "optimizer must keep it in its state and replace it again when that is restored"
        )
    run.slots = run.model.optimizer.slots


# Encoding as facts and arrays


def _encode(found: RunState) -> tuple[dict[str, Any], dict[str, Any]]:
    state, search = found.train_state.state, found.train_state.search
    arrays: dict[str, Any] = {"theta": state.theta, "statistics": state.statistics}
    arrays |= {f"slot.{i}": slot for i, slot in enumerate(state.slots)}
    arrays["losses"] = np.concatenate([np.zeros(0), *(some for some, _ in found.losses)])
    arrays["losses.rows"] = np.concatenate([np.zeros(0), *(np.full(len(some), float(n)) for some, n in found.losses)])
    search_facts: dict[str, Any] | None = None
    if search is not None:
        search_facts = {"loss": search.loss, "iterations": search.iterations}
        search_facts["curvatures"] = [curvature for *_, curvature in search.steps]
        arrays["search.gradient"] = search.gradient
        for i, (change, turn, _) in enumerate(search.steps):
            arrays |= {f"search.change.{i}": change, f"search.turn.{i}": turn}
    for i, callback in enumerate(found.callbacks):
        arrays |= {f"callback.{i}.{name}": array for name, array in callback.arrays.items()}
    facts = {
        "optimizer": found.optimizer,
        "epoch": found.epoch,
        "epochs": found.train_state.epochs,
        "steps": found.train_state.steps,
        "done": found.train_state.steps_done,
        "evaluations": found.evaluations,
        "search": search_facts,
        "history": found.history,
        "ended": found.ended,
        "interrupted": found.interrupted,
        "multilabel": found.multilabel,
        "labels": list(found.labels),
        "callbacks": [[callback.kind, callback.facts] for callback in found.callbacks],
    }
    return facts, arrays


def _decode(run: Run, snapshot: Snapshot) -> RunState:
    facts, arrays = snapshot
    return RunState(
        _decode_train_state(run, facts, arrays),
        _counter(facts, "epoch"),
        _counter(facts, "evaluations"),
        [(arrays["losses"][i : i + 1], int(n)) for i, n in enumerate(arrays["losses.rows"])],
        {name: [float(v) for v in values] for name, values in facts["history"].items()},
        (int(facts["labels"][0]), int(facts["labels"][1])),
        bool(facts.get("multilabel", False)),
        facts["ended"],
        bool(facts.get("interrupted")),
        facts["optimizer"],
        _decode_callbacks(snapshot),
    )


def _decode_train_state(run: Run, facts: dict[str, Any], arrays: dict[str, Any]) -> TrainState:
    model, backend = run.model, run.backend

    def vector(name: str, size: int = model.parameters.size) -> Any:
        if arrays[name].shape != (size,):
            raise IndexError(f"expected {name} of shape ({size},), got {arrays[name].shape}")
        return backend.own(arrays[name], model.dtype)

    slots = tuple(vector(f"slot.{i}") for i in range(len(model.optimizer.slots)))
    state = State(vector("theta"), slots, vector("statistics", model.statistics.size))
    search, known = None, facts["search"]
    if known is not None:
        steps = tuple(
            (vector(f"search.change.{i}"), vector(f"search.turn.{i}"), float(curvature))
            for i, curvature in enumerate(known["curvatures"])
        )
        search = Search(
            state.theta, float(known["loss"]), vector("search.gradient"), steps, _counter(known, "iterations")
        )
    epochs, total, done = (_counter(facts, name) for name in ("epochs", "steps", "done"))
    per_epoch = run.batching.steps_per_epoch
    if per_epoch is not None and done >= max(1, per_epoch):
        raise IndexError(f"{done} steps of an epoch of {per_epoch} are done")
    return TrainState(state, epochs, total, done, search)


def _decode_callbacks(snapshot: Snapshot) -> list[CallbackState]:
    found = []
    for i, (kind, facts) in enumerate(snapshot.facts["callbacks"]):
        prefix = f"callback.{i}."
        arrays = {name[len(prefix) :]: a for name, a in snapshot.arrays.items() if name.startswith(prefix)}
        found.append(CallbackState(kind, facts, arrays))
    return found


def _counter(facts: dict[str, Any], name: str) -> int:
    """Return a number of epochs, steps or iterations."""
    value = facts[name]
    if type(value) is not int or not 0 <= value < 2**31:
        raise IndexError(f"{name} is {value!r}")
    return value


# Whether two runs are the same


def about(run: Run) -> dict[str, Any]:
    """Return the description of a run, made at the first call."""
    if run.about is None:
        run.about = describe_run(run)
    return run.about


def describe_run(run: Run) -> dict[str, Any]:
    """Return what another run must have in common with this one to resume it."""
    model, batching = run.model, run.batching
    return {
        "network": {
            "layers": [[name, checkpoint.describe(layer)] for name, layer in model.layers],
            "parameters": {name: list(shape) for name, shape in model.parameters.pieces},
            "statistics": {name: list(shape) for name, shape in model.statistics.pieces},
            "loss": checkpoint.describe(model.loss),
            "optimizer": run.initial_optimizer,
            "dtype": str(model.dtype),
            "seed": int(run.network.seed),
        },
        "rows": batching.count,
        "batch_size": batching.batch_size,
        "order": batching.order if isinstance(batching.order, str) else "a function",
        "rows_an_epoch": batching.epoch_rows,
        "steps_per_epoch": batching.max_batches,
        "data": run.fingerprint(),
    }


def _check_same_run(run: Run, facts: dict[str, Any]) -> None:
    own = about(run)
    if facts["optimizer"] == run.initial_optimizer:  # a callback had replaced it, and the network may be that very one
        run.initial_optimizer = own["network"]["optimizer"] = facts["about"]["network"]["optimizer"]
    different = checkpoint.differences(facts["about"], own)
    if different:
        raise ValueError(
            f"the checkpoint belongs to another run and cannot be resumed by this one ({'; '.join(different[:5])}): pass the "
            "same network, data and settings, or choose another folder"
        )


def fingerprint(parts: Sequence[Any]) -> list[Any]:
    """Return shape, dtype and a checksum of evenly spaced rows of each array, source or None; of blocks those of the first.

    Examples
    --------
    >>> fingerprint([np.zeros((3, 1)), None])
    [[[3, 1], 'float64', 2747386400], None]
    """
    return [None if part is None else _fingerprint_of(part) for part in parts]


def _fingerprint_of(part: Any) -> list[Any]:
    if isinstance(part, BatchStream):
        return ["batches", fingerprint(part.first)]
    if not hasattr(part, "shape") and isinstance(part, Blocks):
        first = next(i for i, size in enumerate(part.sizes) if size)
        sizes = np.asarray(part.sizes, dtype=np.int64)
        facts = [len(sizes), int(sizes.sum()), zlib.crc32(sizes.tobytes()), int(part.columns)]
        return [facts, fingerprint(part.read(first))]
    part = part if hasattr(part, "shape") else np.asarray(part)
    rows = np.unique(np.linspace(0, part.shape[0] - 1, FINGERPRINT_ROWS).astype(np.int64))
    if is_array(part) and (len(part.shape) == 1 or math.prod(part.shape) <= FINGERPRINT_SIZE):
        some = to_numpy(part)
    elif isinstance(part, np.ndarray):
        some = part[rows]
    elif is_array(part):
        some = np.stack([to_numpy(part[int(i), ...]) for i in rows])
    else:
        some = part.take(rows)
    return [
        [int(n) for n in part.shape],
        str(some.dtype),
        zlib.crc32(np.ascontiguousarray(some).tobytes()),
    ]


def versions(backend: Any) -> dict[str, str]:
    """Return what a run depends on besides its data.

    Examples
    --------
    >>> import portablenn as pnn
    >>> sorted(versions(pnn.get_backend("numpy")))
    ['backend', 'machine', 'numpy', 'portablenn', 'python']
    """
    import platform

    return {
        "portablenn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "backend": str(backend),
        "machine": platform.machine(),
    }
