"""Fitting: one call of ``Network.fit`` from its first step to its last, with those who are told, and how to take it up again.

Requires a `training.Task`. Everything that the rest of a run depends on is in its `snapshot`: from there it goes on as if it
had never ended, bit for bit on the same backend.
"""

from __future__ import annotations

import contextlib
import math
import warnings
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..callbacks.base import Callback, Steps
from ..data.batching import reduced
from ..data.sources import Blocks, Stream
from ..files import checkpoint
from ..files.checkpoint import Snapshot
from ..files.safetensors_file import FileFormatError
from ..nn.lbfgs import Search
from ..nn.model import State
from ..nn.optimizers import LBFGS
from ..runtime.arrays import is_array, to_numpy
from ..version import __version__
from . import interrupts
from .history import History
from .step import Run, Standing, Task, minimized, stepped

SEEN = 1000
"""Rows that the fingerprint of data looks at; of targets and weights at all."""


@dataclass(eq=False, repr=False)
class Fitting:
    """What one ``fit`` is doing, and how far it is; a callback finds it as ``network.training``.

    Attributes
    ----------
    network
        What is trained.
    task
        What to do with it.
    epochs
        How many were asked for.
    evaluate
        Returns the figures of the validation rows; None if there are none.
    fingerprint
        Returns what tells these data from others, as they were handed in.
    callbacks
        Who is told.
    epoch
        How many of the epochs have ended.
    ended
        Why it ends; "" while it goes on.
    state_replaced
        Whether a callback has just put another state in the place of what the steps led to.
    """

    network: Any
    task: Task
    epochs: int
    evaluate: Callable[[], dict[str, float]] | None
    fingerprint: Callable[[], Any]
    callbacks: Sequence[Callback]
    epoch: int = 0
    ended: str = ""
    losses: list[tuple[Any, int]] = field(default_factory=list)
    """Of the steps of the epoch under way, call by call, with the rows of each step."""

    def __post_init__(self) -> None:
        """Begin where the network stands."""
        self.standing = Standing(self.network.state, self.network.epochs, self.network.steps)
        self.history: History = self.network.history
        self.began_with = checkpoint.describe(self.task.model.optimizer)
        self.begun = self.failed_in_callback = self.state_replaced = self.interrupted = False

    def run(self, resume: Any = None) -> History:
        """Train to the end, or until a callback or Ctrl-C ends it; from the newest checkpoint of a folder, if there is one."""
        found = None if resume is None else checkpoint.newest(resume)
        if found is not None:
            self._restore(found)
        elif any(
            getattr(type(c), "on_snapshot_ready", Callback.on_snapshot_ready) is not Callback.on_snapshot_ready
            for c in self.callbacks
        ):
            _ = self.about  # of the data as they are now, and not at the first checkpoint
        told: list[Callback] = []
        try:
            for callback in self.callbacks:
                told.append(callback)
                callback.on_train_begin(self.network, self.epochs)
            if found is not None:
                self._restore_callbacks(found)
            if not self.ended:
                self._train()
        except BaseException:
            self._end(told, quietly=True)
            raise
        self._end(told)
        self.history.ended = self.ended
        self._warn()
        return self.history

    def _train(self) -> None:
        with interrupts.noticed() as ctrl_c, contextlib.closing(self._runs()) as runs:
            for run in runs:
                self._take_over(run, ctrl_c)
                if self.ended:
                    break
            if not self.ended and self.epoch < self.epochs:
                self.ended = "the tolerance of L-BFGS, or its budget, was reached"
                self._tell("on_snapshot_ready", self)
            if ctrl_c.yet and not self.interrupted:
                self.interrupted = True
                self.ended = "; ".join(filter(None, (self.ended, "Ctrl-C after the last epoch")))

    def _end(self, callbacks: Sequence[Callback], quietly: bool = False) -> None:
        """Tell those that were told of the begin; all of them, also if one fails."""
        failed: BaseException | None = None
        for callback in callbacks:
            try:
                callback.on_train_end(self.network)
            except BaseException as error:
                failed = failed or error
        if failed is not None and not quietly:
            self.failed_in_callback = True
            raise failed

    def _runs(self) -> Generator[Run, None, None]:
        left = self.epochs - self.epoch
        if isinstance(self.task.model.optimizer, LBFGS):
            return minimized(self.task, self.standing, left)
        return stepped(self.task, self.standing, left, watched=bool(self.callbacks) or self.evaluate is not None)

    def _take_over(self, run: Run, ctrl_c: interrupts.Noticed) -> None:
        """Note where the network stands, write the history, and tell the callbacks."""
        network, before = self.network, self.standing.done
        self.begun, self.standing = True, run.standing
        network.state, network.epochs, network.steps = run.standing[:3]
        self.history.how = f"{self.task.backend}: {run.standing.how}" if run.standing.how else str(self.task.backend)
        self.history.evaluations = self.task.evaluations
        self.losses += run.losses
        reasons = []
        if self.callbacks:
            done = before + sum(int(losses.shape[0]) for losses, _ in run.losses)
            total = self.task.plan.steps
            steps = Steps(self.epoch + 1, before + 1, done, total, run.standing.steps, run.losses, run.order)
            reasons += self._tell("on_steps_end", steps)
        if run.epochs:
            for loss in self._epoch_losses(run.epochs):
                logs = {"loss": loss}
                if self.evaluate is not None:
                    logs |= {f"val_{k}": v for k, v in self.evaluate().items()}
                self.history.add(logs)
            self.epoch += run.epochs
            reasons += self._tell("on_epoch_end", self.epoch, logs)
        self.ended = next((reason for _, reason in reasons), "")
        self.interrupted = all(getattr(callback, "interrupts", False) for callback, _ in reasons) and bool(reasons)
        if ctrl_c.yet and not self.ended:
            self.interrupted, self.ended = True, f"Ctrl-C in epoch {self.epoch + (not run.epochs)}"
        self.state_replaced = network.state is not run.standing.state
        if self.state_replaced and self.standing.search is not None and not self.ended:
            raise ValueError("a callback changed the parameters, which L-BFGS does not allow: use another optimizer")
        if network.optimizer.slots != self.task.model.optimizer.slots:
            raise ValueError(
                f"a callback replaced the optimizer {self.task.model.optimizer} by {network.optimizer}, which remembers other "
                "vectors: do so between calls of fit"
            )
        self.standing = self.standing._replace(state=network.state)
        self._tell("on_snapshot_ready", self)
        self.task.model, self.task.state = network.model, network.state

    def _tell(self, hook: str, *facts: Any) -> list[tuple[Callback, str]]:
        """Call a method of each callback, if it has it; returns those that want to end, and why."""
        reasons = []
        for callback in self.callbacks:
            try:
                answer = getattr(callback, hook, _nothing)(self.network, *facts)
            except BaseException:
                self.failed_in_callback = True
                raise
            if answer:
                why = answer if isinstance(answer, str) else f"{type(callback).__name__} ended it"
                reasons.append((callback, why))
        return reasons

    def _epoch_losses(self, epochs: int) -> list[float]:
        """Read the losses of all steps since the last time, once, and reduce them to one an epoch."""
        read = [(self.task.backend.to_numpy(some).astype(np.float64), rows) for some, rows in self.losses]
        self.losses = []
        return reduced(read, epochs, self.task.model.loss.reduction == "mean")

    def _warn(self) -> None:
        if "Ctrl-C" in self.ended and self.begun:
            warnings.warn(f"training was ended by {self.ended}", RuntimeWarning, stacklevel=4)
        losses = self.history.get("loss", ())
        bad = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        if bad is not None and not (self.ended and bad == len(losses)):  # else it was ended for that, and was told of
            warnings.warn(
                f"the loss is {losses[bad - 1]} from epoch {bad} on: lower the learning rate, scale the data, or bound the "
                "gradient with clip_norm",
                RuntimeWarning,
                stacklevel=4,
            )

    # To be taken up again

    def snapshot(self) -> Snapshot:
        """All that the rest of the run depends on.

        Raises
        ------
        TypeError
            If a callback's state holds what is neither an array nor JSON.
        """
        network, standing = self.network, self.standing
        arrays: dict[str, Any] = {"theta": standing.state.theta, "statistics": standing.state.statistics}
        arrays |= {f"slot.{i}": slot for i, slot in enumerate(standing.state.slots)}
        read = [(self.task.backend.to_numpy(some).astype(np.float64), rows) for some, rows in self.losses]
        arrays["losses"] = np.concatenate([np.zeros(0), *(some for some, _ in read)])
        arrays["losses.rows"] = np.concatenate([np.zeros(0), *(np.full(len(some), float(n)) for some, n in read)])
        search: dict[str, Any] | None = None
        if standing.search is not None:
            search = {"loss": standing.search.loss, "iterations": standing.search.iterations}
            search["curvatures"] = [curvature for *_, curvature in standing.search.steps]
            arrays["search.gradient"] = standing.search.gradient
            for i, (change, turn, _) in enumerate(standing.search.steps):
                arrays |= {f"search.change.{i}": change, f"search.turn.{i}": turn}
        told = []
        for i, callback in enumerate(self.callbacks):
            kept = getattr(callback, "state_dict", None)
            state: dict[str, Any] = kept() if callable(kept) else {}
            state = {k: v.item() if isinstance(v, np.generic) else v for k, v in state.items()}
            told.append([type(callback).__name__, {k: v for k, v in state.items() if not is_array(v)}])
            arrays |= {f"callback.{i}.{k}": v for k, v in state.items() if is_array(v)}
        facts = {
            "about": self.about,
            "versions": versions(self.task.backend),
            "optimizer": checkpoint.describe(network.optimizer),
            "epoch": self.epoch,
            "epochs": standing.epochs,
            "steps": standing.steps,
            "done": standing.done,
            "evaluations": self.task.evaluations,
            "search": search,
            "history": dict(self.history),
            "ended": self.ended,
            "interrupted": self.interrupted,
            "multilabel": network.multilabel,
            "labels": list(network.labels),
            "callbacks": told,
        }
        return Snapshot(facts, arrays)

    @cached_property
    def about(self) -> dict[str, Any]:
        """What another run must have in common with this one to go on with it."""
        model, plan = self.task.model, self.task.plan
        kind = plan.order if isinstance(plan.order, str) else "a function"
        return {
            "network": {
                "layers": [[name, checkpoint.describe(layer)] for name, layer in model.layers],
                "parameters": {name: list(shape) for name, shape in model.parameters.pieces},
                "statistics": {name: list(shape) for name, shape in model.statistics.pieces},
                "loss": checkpoint.describe(model.loss),
                "optimizer": self.began_with,
                "dtype": str(model.dtype),
                "seed": int(self.task.seed),
            },
            "rows": plan.count,
            "batch_size": plan.batch,
            "order": kind,
            "rows_an_epoch": plan.epoch,
            "steps_per_epoch": plan.batches,
            "data": self.fingerprint(),
        }

    def _restore(self, snapshot: Snapshot) -> None:
        """Stand where a snapshot does; nothing is changed before all is checked.

        Raises
        ------
        ValueError
            If it is of another network, other data or another way to go through them.
        FileFormatError
            If something is missing in it.
        """
        facts, arrays = snapshot
        network = self.network
        try:
            other = checkpoint.differences(facts["about"], self._like(facts))
            self._refuse(other)
            standing = self._standing(facts, arrays)
            epoch, evaluations = _count(facts, "epoch"), _count(facts, "evaluations")
            rows = arrays["losses.rows"]
            losses = [(arrays["losses"][i : i + 1], int(n)) for i, n in enumerate(rows)]
            history = {name: [float(v) for v in values] for name, values in facts["history"].items()}
            labels = (int(facts["labels"][0]), int(facts["labels"][1]))
        except (KeyError, IndexError, TypeError, AttributeError, OverflowError) as error:
            raise FileFormatError(f"the checkpoint is not as one is written: {error!r}") from None
        if epoch > self.epochs or (epoch == self.epochs and standing.done):
            raise ValueError(
                f"the checkpoint is {epoch} epochs and {standing.done} steps on, and epochs={self.epochs} in all: ask for more"
            )
        self.standing, self.epoch, self.losses, self.task.evaluations = standing, epoch, losses, evaluations
        self.history.update(history)
        self.history.evaluations, self.history.resumed = evaluations, standing.steps
        network.state, network.epochs, network.steps = standing[:3]
        network.labels, network.multilabel = labels, bool(facts.get("multilabel", False))
        if facts["ended"] and not facts.get("interrupted"):
            self.ended = facts["ended"]
        if isinstance(self.task.data.x, Stream):
            self.task.data.x.pass_over(epoch)

    @staticmethod
    def _refuse(other: list[str]) -> None:
        if other:
            raise ValueError(
                "the checkpoint is of another training and cannot be resumed by this one ("
                + "; ".join(other[:5])
                + "): hand over the same network, data and settings, or another folder"
            )

    def _like(self, facts: dict[str, Any]) -> dict[str, Any]:
        """What this training is, for comparison: with the optimizer that the other began with, if this has what it had then.

        A callback may have replaced it, and the network may be that very one.
        """
        about = self.about
        if facts["optimizer"] == self.began_with:
            began = facts["about"]["network"]["optimizer"]
            self.began_with = began
            about["network"]["optimizer"] = began
        return about

    def _standing(self, facts: dict[str, Any], arrays: dict[str, Any]) -> Standing:
        model, backend = self.task.model, self.task.backend

        def vector(name: str, size: int = model.parameters.size) -> Any:
            if arrays[name].shape != (size,):
                raise IndexError(f"{name} has shape {arrays[name].shape}, expected ({size},)")
            return backend.own(arrays[name], model.dtype)

        slots = tuple(vector(f"slot.{i}") for i in range(len(model.optimizer.slots)))
        state = State(vector("theta"), slots, vector("statistics", model.statistics.size))
        search, known = None, facts["search"]
        if known is not None:
            steps = [
                (vector(f"search.change.{i}"), vector(f"search.turn.{i}"), float(curvature))
                for i, curvature in enumerate(known["curvatures"])
            ]
            gradient = vector("search.gradient")
            search = Search(state.theta, float(known["loss"]), gradient, tuple(steps), _count(known, "iterations"))
        epochs, steps_, done = (_count(facts, name) for name in ("epochs", "steps", "done"))
        if self.task.plan.steps is not None and done >= max(1, self.task.plan.steps):
            raise IndexError(f"{done} steps of an epoch of {self.task.plan.steps} are done")
        return Standing(state, epochs, steps_, done, search=search)

    def _restore_callbacks(self, snapshot: Snapshot) -> None:
        """Give each callback the state that one of its kind had, in their order; one may want to end at once.

        Raises
        ------
        ValueError
            If the state of one would be lost, or an optimizer that one had put there.
        """
        facts, arrays = snapshot
        left = [[kind, state, i] for i, (kind, state) in enumerate(facts["callbacks"])]
        for callback in self.callbacks:
            match = next((one for one in left if one[0] == type(callback).__name__), None)
            if match is None:
                continue
            left.remove(match)
            _, state, i = match
            prefix = f"callback.{i}."
            state = {**state, **{name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}}
            if state:
                self.ended = callback.load_state_dict(state) or self.ended
        lost = [kind for kind, state, i in left if state or any(name.startswith(f"callback.{i}.") for name in arrays)]
        if lost:
            raise ValueError(
                f"the checkpoint has the state of {', '.join(lost)} and this fit has no such callback: hand it over as before"
            )
        now = checkpoint.describe(self.network.optimizer)
        if facts["optimizer"] != now:
            raise ValueError(
                f"the checkpoint was written with the optimizer {facts['optimizer']}, now it is {now}: a callback that "
                "replaces it returns that from state_dict(), and does so again in load_state_dict()"
            )
        self.task.model = self.network.model


def _count(facts: dict[str, Any], name: str) -> int:
    """A fact that is a number of epochs or steps."""
    value = facts[name]
    if type(value) is not int or not 0 <= value < 2**31:
        raise IndexError(f"{name} is {value!r}")
    return value


def fingerprint(parts: Sequence[Any]) -> list[Any]:
    """Shape, dtype and the checksum of some rows, spread evenly, of each array, source or None; of blocks of the first.

    Examples
    --------
    >>> fingerprint([np.zeros((3, 1)), None])
    [[[3, 1], 'float64', 2747386400], None]
    """
    found: list[Any] = []
    for part in parts:
        if part is None:
            found.append(None)
            continue
        part = part if hasattr(part, "shape") or isinstance(part, (Stream, Blocks)) else np.asarray(part)
        if isinstance(part, Stream):
            found.append(["batches", fingerprint(part.first)])
            continue
        if isinstance(part, Blocks):
            first = next(i for i, size in enumerate(part.sizes) if size)
            sizes = np.asarray(part.sizes, dtype=np.int64)
            told = [len(sizes), int(sizes.sum()), zlib.crc32(sizes.tobytes()), int(part.columns)]
            found.append([told, fingerprint(part.read(first))])
            continue
        rows = np.unique(np.linspace(0, part.shape[0] - 1, SEEN).astype(np.int64))
        if is_array(part) and (len(part.shape) == 1 or isinstance(part, np.ndarray)):
            some = to_numpy(part) if len(part.shape) == 1 else part[rows]  # of targets and weights all
        else:
            some = np.stack([to_numpy(part[int(i), ...]) for i in rows]) if is_array(part) else part.take(rows)
        kind = str(some.dtype)
        found.append([[int(n) for n in part.shape], kind, zlib.crc32(np.ascontiguousarray(some).tobytes())])
    return found


def versions(backend: Any) -> dict[str, str]:
    """What a run depends on beside its data.

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


def _nothing(*_: Any) -> None:
    """For a hook that a callback does not have."""
