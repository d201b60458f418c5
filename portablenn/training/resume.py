"""Resuming: everything that the rest of a run depends on, to and from a checkpoint.

On the same backend, a resumed run ends in the same bits as one that was never interrupted.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
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


def snapshot(run: Run) -> Snapshot:
    """Return the state of a run as a checkpoint holds it.

    Raises
    ------
    TypeError
        If the state of a callback holds something that is neither an array nor JSON.
    """
    network, train_state, search = run.network, run.train_state, run.train_state.search
    losses = [(run.backend.to_numpy(some).astype(np.float64), rows) for some, rows in run.losses]
    arrays: dict[str, Any] = {"theta": train_state.state.theta, "statistics": train_state.state.statistics}
    arrays |= {f"slot.{i}": slot for i, slot in enumerate(train_state.state.slots)}
    arrays["losses"] = np.concatenate([np.zeros(0), *(some for some, _ in losses)])
    arrays["losses.rows"] = np.concatenate([np.zeros(0), *(np.full(len(some), float(n)) for some, n in losses)])
    search_facts: dict[str, Any] | None = None
    if search is not None:
        search_facts = {"loss": search.loss, "iterations": search.iterations}
        search_facts["curvatures"] = [curvature for *_, curvature in search.steps]
        arrays["search.gradient"] = search.gradient
        for i, (change, turn, _) in enumerate(search.steps):
            arrays |= {f"search.change.{i}": change, f"search.turn.{i}": turn}
    callbacks = []
    for i, callback in enumerate(run.callbacks):
        state = _state_of(callback)
        arrays |= {f"callback.{i}.{name}": value for name, value in state.items() if is_array(value)}
        callbacks.append([type(callback).__name__, {k: v for k, v in state.items() if not is_array(v)}])
    facts = {
        "optimizer": checkpoint.describe(network.optimizer),
        "epoch": run.epoch,
        "epochs": train_state.epochs,
        "steps": train_state.steps,
        "done": train_state.steps_done,
        "evaluations": run.evaluations,
        "search": search_facts,
        "history": dict(run.history),
        "ended": run.ended,
        "interrupted": run.interrupted,
        "multilabel": network.multilabel,
        "labels": list(network.labels),
        "callbacks": callbacks,
        "about": about(run),
        "versions": versions(run.backend) | {"how": run.history.how},
    }
    return Snapshot(facts, arrays)


def _state_of(callback: Any) -> dict[str, Any]:
    get = getattr(callback, "state_dict", None)
    state = get() if callable(get) else {}
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in state.items()}


def versions(backend: Any) -> dict[str, str]:
    """Return what a run depends on besides its data."""
    import platform

    return {
        "portablenn": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "backend": str(backend),
        "machine": platform.machine(),
    }


def restore(run: Run, snapshot: Snapshot) -> None:
    """Go to the state of a snapshot; nothing is changed before everything is checked.

    Raises
    ------
    ValueError
        If it belongs to another network, other data or other settings.
    FileFormatError
        If something is missing in it.
    """
    network, (facts, arrays) = run.network, snapshot
    try:
        _check_same_run(run, facts)
        train_state = _train_state(run, facts, arrays)
        epoch, evaluations = _counter(facts, "epoch"), _counter(facts, "evaluations")
        losses = [(arrays["losses"][i : i + 1], int(n)) for i, n in enumerate(arrays["losses.rows"])]
        history = {name: [float(v) for v in values] for name, values in facts["history"].items()}
        labels = int(facts["labels"][0]), int(facts["labels"][1])
    except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
        raise FileFormatError(f"the checkpoint does not have the expected content: {error!r}") from None
    if epoch > run.epochs or (epoch == run.epochs and train_state.steps_done):
        raise ValueError(
            f"the checkpoint was written after {epoch} epochs and {train_state.steps_done} steps, and epochs={run.epochs} "
            "is the total number: pass a larger one"
        )
    run.train_state, run.epoch, run.losses, run.evaluations = train_state, epoch, losses, evaluations
    run.history.update(history)
    run.history.evaluations, run.history.resumed = evaluations, train_state.steps
    network.state, network.epochs, network.steps = train_state[:3]
    network.labels, network.multilabel = labels, bool(facts.get("multilabel", False))
    if facts["ended"] and not facts.get("interrupted"):
        run.ended = facts["ended"]
    if isinstance(run.data.x, BatchStream):
        run.data.x.skip(epoch)


def _train_state(run: Run, facts: dict[str, Any], arrays: dict[str, Any]) -> TrainState:
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


def _counter(facts: dict[str, Any], name: str) -> int:
    """Return a number of epochs, steps or iterations."""
    value = facts[name]
    if type(value) is not int or not 0 <= value < 2**31:
        raise IndexError(f"{name} is {value!r}")
    return value


def restore_callbacks(run: Run, snapshot: Snapshot) -> None:
    """Give each callback the state of one of its class, in their order; one may end the run at once.

    Raises
    ------
    ValueError
        If the state of a callback would be lost, or an optimizer that one had put in place.
    """
    left = []
    for i, (kind, facts) in enumerate(snapshot.facts["callbacks"]):
        prefix = f"callback.{i}."
        arrays = {name[len(prefix) :]: a for name, a in snapshot.arrays.items() if name.startswith(prefix)}
        left.append((kind, facts | arrays))
    for callback in run.callbacks:
        match = next((i for i, (kind, _) in enumerate(left) if kind == type(callback).__name__), None)
        if match is None:
            continue
        _, state = left.pop(match)
        if state:
            run.ended = callback.load_state_dict(state) or run.ended
    lost = [kind for kind, state in left if state]
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


# Whether two runs are the same


def about(run: Run) -> dict[str, Any]:
    """Return what another run must have in common with this one to resume it; made at the first call."""
    if run.about is None:
        model, batching = run.model, run.batching
        network = {
            "layers": [[name, checkpoint.describe(layer)] for name, layer in model.layers],
            "parameters": {name: list(shape) for name, shape in model.parameters.pieces},
            "statistics": {name: list(shape) for name, shape in model.statistics.pieces},
            "loss": checkpoint.describe(model.loss),
            "optimizer": checkpoint.describe(run.initial_optimizer),
            "dtype": str(model.dtype),
            "seed": int(run.network.seed),
        }
        if model.precision is not None:
            network["precision"] = model.precision
        run.about = {
            "network": network,
            "rows": batching.count,
            "batch_size": batching.batch_size,
            "order": batching.order if isinstance(batching.order, str) else "a function",
            "rows_per_epoch": batching.epoch_rows,
            "steps_per_epoch": batching.max_batches,
            "data": fingerprint(run.arrays),
        }
    return run.about


def _check_same_run(run: Run, facts: dict[str, Any]) -> None:
    network = about(run)["network"]
    if facts["optimizer"] == network["optimizer"]:  # a callback had replaced it, and the network may be that very one
        network["optimizer"] = facts["about"]["network"]["optimizer"]
    different = checkpoint.differences(facts["about"], about(run))
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
    return [[int(n) for n in part.shape], str(some.dtype), zlib.crc32(np.ascontiguousarray(some).tobytes())]
