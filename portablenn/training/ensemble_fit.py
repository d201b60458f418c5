"""One call of `Ensemble.fit`: rounds of epochs, on several threads where programs are small, early stopping, the history."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..nn.model import State
from ..runtime.numpy.threads import get_threads
from . import interrupts
from .history import History
from .members import TrainedMembers
from .state import ROWS_PER_CALL


class EnsembleFit:
    """One call of `Ensemble.fit`: rounds of some epochs, of all members that have not stopped."""

    def __init__(
        self,
        ensemble: Any,
        parts: list[TrainedMembers],
        data: Dataset,
        held_out: Dataset | None,
        epochs: int,
        patience: int | None,
        hooks: Sequence[Callable[..., Any]],
    ) -> None:
        self.ensemble, self.parts, self.data, self.held_out = ensemble, parts, data, held_out
        self.epochs, self.patience, self.hooks = epochs, patience, hooks
        watched = bool(hooks) or held_out is not None or patience is not None
        rows = max(part.batching.epoch_rows * part.order_count for part in parts)
        self.together = 1 if watched else max(1, ROWS_PER_CALL // max(1, rows))
        self.history = History()
        self.results: list[tuple[int, State, int, int]] = []  # of members: number, state, steps and epochs trained
        self.done = 0
        self.lowest, self.stale = np.full(len(ensemble), math.inf), np.zeros(len(ensemble), dtype=np.int64)
        self.trained = np.zeros(len(ensemble), dtype=np.int64)  # epochs

    def run(self) -> None:
        parts = list(self.parts)
        backend = parts[0].backend
        workers = 1 if backend.members_elements is None else min(len(parts), get_threads())
        with interrupts.catch_ctrl_c() as ctrl_c, ThreadPoolExecutor(workers) as pool:
            while parts and self.done < self.epochs:
                count = min(self.together, self.epochs - self.done)
                job = partial(self._train, count)
                found = list(pool.map(job, parts)) if workers > 1 else list(map(job, parts))
                self.done += count
                answers = self._record(parts, found, count)
                parts = [part for part in parts if self._continues(part)]
                if not all(answer is None or answer is False for answer in answers) or ctrl_c.pressed:
                    self.history.ended = "Ctrl-C" if ctrl_c.pressed else "a callback ended it"
                    break
        for part in parts:
            self._finish(part, np.arange(len(part.numbers)))
        self._warn()
        ways = dict.fromkeys(part.how for part in self.parts if part.how)
        self.history.how = ": ".join(filter(None, (str(backend), ", ".join(ways))))

    def _train(self, epochs: int, part: TrainedMembers) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Train a part for some epochs; return the losses of each, and the metrics of validation rows after the last."""
        losses = part.train(self.data, epochs)
        return losses, {} if self.held_out is None else part.evaluate(self.held_out)

    def _record(self, parts: Sequence[TrainedMembers], found: Sequence[Any], epochs: int) -> list[Any]:
        """Add some epochs to the history and call the callbacks; keep the best states."""
        count = len(self.ensemble)
        for epoch in range(epochs):
            logs = {"loss": np.full(count, np.nan)}
            for part, (figures, metrics) in zip(parts, found, strict=True):
                logs["loss"][part.numbers] = figures[epoch]
                for name, values in metrics.items():
                    logs.setdefault(f"val_{name}", np.full(count, np.nan))[part.numbers] = values
            for part in parts:
                running = part.numbers[self.stale[part.numbers] < (self.patience or math.inf)]
                self.trained[running] += 1
            stopped = self.stale >= (self.patience or math.inf)
            for values in logs.values():
                values[stopped] = np.nan
            self.history.add({name: values.copy() for name, values in logs.items()})  # type: ignore[misc]
        if self.patience is not None:
            better = logs["val_loss"] < self.lowest
            self.lowest = np.where(better, logs["val_loss"], self.lowest)
            self.stale = np.where(better, 0, self.stale + 1)
            for part in parts:
                part.keep_best(better[part.numbers])
        return [hook(self.ensemble, self.done, logs) for hook in self.hooks]

    def _warn(self) -> None:
        """Warn of the members whose loss is not finite at the end."""
        figures = np.asarray(self.history.get("loss", np.zeros((0, len(self.ensemble)))))
        bad = [k for k, n in enumerate(self.trained) if n and not np.isfinite(figures[n - 1, k])]
        if bad:
            some = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            warnings.warn(
                f"the loss of {len(bad)} of {len(self.ensemble)} members is not finite ({some}), and so are means over them: "
                "lower their learning rates, or leave them out, as in Ensemble([ens[k] for k in good])",
                RuntimeWarning,
                stacklevel=4,
            )

    def _continues(self, part: TrainedMembers) -> bool:
        """Let go of the members that have stopped, once they are at least half of the part; return whether any is left."""
        if self.patience is None:
            return True
        active = self.stale[part.numbers] < self.patience
        if 2 * active.sum() > len(active):
            return True
        self._finish(part, np.flatnonzero(~active))
        if active.any():
            part.narrowed(np.flatnonzero(active))
        return bool(active.any())

    def _finish(self, part: TrainedMembers, positions: np.ndarray) -> None:
        """Take the results of the members at these positions."""
        states = dict(part.states(best=self.patience is not None))
        per_epoch = (part.steps - part.first_step) // max(1, self.done)
        for number in map(int, part.numbers[positions]):
            epochs = int(self.trained[number])
            self.results.append((number, states[number], part.first_step + per_epoch * epochs, epochs))
