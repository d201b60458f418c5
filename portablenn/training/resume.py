"""Resuming: everything that the rest of a run depends on, as a checkpoint holds it.

A run that goes on from a checkpoint ends in the same bits, on the same backend, as one that was never interrupted.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data.sources import BatchStream, Blocks
from ..files import checkpoint
from ..files.checkpoint import Snapshot
from ..files.safetensors_file import FileFormatError
from ..nn.lbfgs import Search
from ..nn.model import State
from ..runtime.arrays import is_array, to_numpy
from ..version import __version__
from .state import TrainState

if TYPE_CHECKING:
    from .loop import TrainingLoop

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


def snapshot(loop: TrainingLoop) -> Snapshot:
    """Return the state of a run as a checkpoint holds it.

    Raises
    ------
    TypeError
        If the state of a callback holds something that is neither an array nor JSON.
    """
    network = loop.network
    losses = [(loop.backend.to_numpy(some).astype(np.float64), rows) for some, rows in loop.losses]
    run = RunState(
        loop.train_state,
        loop.epoch,
        loop.evaluations,
        losses,
        dict(loop.history),
        network.labels,
        network.multilabel,
        loop.ended,
        loop.interrupted,
        checkpoint.describe(network.optimizer),
        [CallbackState.of(callback) for callback in loop.callbacks],
    )
    facts, arrays = _encode(run)
    return Snapshot(facts | {"about": loop.about, "versions": versions(loop.backend)}, arrays)


def restore(loop: TrainingLoop, snapshot: Snapshot) -> None:
    """Go to the state of a snapshot; nothing is changed before everything is checked.

    Raises
    ------
    ValueError
        If it belongs to another network, other data or other settings.
    FileFormatError
        If something is missing in it.
    """
    network = loop.network
    try:
        _check_same_run(loop, snapshot.facts)
        run = _decode(loop, snapshot)
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"the checkpoint does not have the expected content: {error!r}") from None
    if run.epoch > loop.epochs or (run.epoch == loop.epochs and run.train_state.steps_done):
        raise ValueError(
            f"the checkpoint was written after {run.epoch} epochs and {run.train_state.steps_done} steps, and epochs="
            f"{loop.epochs} is the total number: pass a larger one"
        )
    loop.train_state, loop.epoch, loop.losses, loop.evaluations = (
        run.train_state, run.epoch, run.losses, run.evaluations,
    )  # fmt: skip
    loop.history.update(run.history)
    loop.history.evaluations, loop.history.resumed = run.evaluations, run.train_state.steps
    network.state, network.epochs, network.steps = run.train_state[:3]
    network.labels, network.multilabel = run.labels, run.multilabel
    if run.ended and not run.interrupted:
        loop.ended = run.ended
    if isinstance(loop.data.x, BatchStream):
        loop.data.x.skip(run.epoch)


def restore_callbacks(loop: TrainingLoop, snapshot: Snapshot) -> None:
    """Give each callback the state of one of its class, in their order; one may end the run at once.

    Raises
    ------
    ValueError
        If the state of a callback would be lost, or an optimizer that one had put in place.
    """
    left = _decode_callbacks(snapshot)
    for callback in loop.callbacks:
        match = next((state for state in left if state.kind == type(callback).__name__), None)
        if match is None:
            continue
        left.remove(match)
        if not match.empty:
            loop.ended = callback.load_state_dict(match.facts | match.arrays) or loop.ended
    lost = [state.kind for state in left if not state.empty]
    if lost:
        raise ValueError(
            f"the checkpoint has the state of {', '.join(lost)}, and this fit has no such callback: pass it as before"
        )
    now, before = checkpoint.describe(loop.network.optimizer), snapshot.facts["optimizer"]
    if now != before:
        raise ValueError(
            f"the checkpoint was written with the optimizer {before}, and now it is {now}: a callback that replaces the "
            "optimizer must keep it in its state and replace it again when that is restored"
        )
    loop.slots = loop.model.optimizer.slots


# Encoding as facts and arrays


def _encode(run: RunState) -> tuple[dict[str, Any], dict[str, Any]]:
    state, search = run.train_state.state, run.train_state.search
    arrays: dict[str, Any] = {"theta": state.theta, "statistics": state.statistics}
    arrays |= {f"slot.{i}": slot for i, slot in enumerate(state.slots)}
    arrays["losses"] = np.concatenate([np.zeros(0), *(some for some, _ in run.losses)])
    arrays["losses.rows"] = np.concatenate([np.zeros(0), *(np.full(len(some), float(n)) for some, n in run.losses)])
    search_facts: dict[str, Any] | None = None
    if search is not None:
        search_facts = {"loss": search.loss, "iterations": search.iterations}
        search_facts["curvatures"] = [curvature for *_, curvature in search.steps]
        arrays["search.gradient"] = search.gradient
        for i, (change, turn, _) in enumerate(search.steps):
            arrays |= {f"search.change.{i}": change, f"search.turn.{i}": turn}
    for i, callback in enumerate(run.callbacks):
        arrays |= {f"callback.{i}.{name}": array for name, array in callback.arrays.items()}
    facts = {
        "optimizer": run.optimizer,
        "epoch": run.epoch,
        "epochs": run.train_state.epochs,
        "steps": run.train_state.steps,
        "done": run.train_state.steps_done,
        "evaluations": run.evaluations,
        "search": search_facts,
        "history": run.history,
        "ended": run.ended,
        "interrupted": run.interrupted,
        "multilabel": run.multilabel,
        "labels": list(run.labels),
        "callbacks": [[callback.kind, callback.facts] for callback in run.callbacks],
    }
    return facts, arrays


def _decode(loop: TrainingLoop, snapshot: Snapshot) -> RunState:
    facts, arrays = snapshot
    return RunState(
        _decode_train_state(loop, facts, arrays),
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


def _decode_train_state(loop: TrainingLoop, facts: dict[str, Any], arrays: dict[str, Any]) -> TrainState:
    model, backend = loop.model, loop.backend

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
    per_epoch = loop.batching.steps_per_epoch
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


def describe_run(loop: TrainingLoop) -> dict[str, Any]:
    """Return what another run must have in common with this one to resume it."""
    model, batching = loop.model, loop.batching
    return {
        "network": {
            "layers": [[name, checkpoint.describe(layer)] for name, layer in model.layers],
            "parameters": {name: list(shape) for name, shape in model.parameters.pieces},
            "statistics": {name: list(shape) for name, shape in model.statistics.pieces},
            "loss": checkpoint.describe(model.loss),
            "optimizer": loop.initial_optimizer,
            "dtype": str(model.dtype),
            "seed": int(loop.network.seed),
        },
        "rows": batching.count,
        "batch_size": batching.batch_size,
        "order": batching.order if isinstance(batching.order, str) else "a function",
        "rows_an_epoch": batching.epoch_rows,
        "steps_per_epoch": batching.max_batches,
        "data": loop.fingerprint(),
    }


def _check_same_run(loop: TrainingLoop, facts: dict[str, Any]) -> None:
    about = loop.about
    if facts["optimizer"] == loop.initial_optimizer:  # a callback had replaced it, and the network may be that very one
        loop.initial_optimizer = about["network"]["optimizer"] = facts["about"]["network"]["optimizer"]
    different = checkpoint.differences(facts["about"], about)
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
