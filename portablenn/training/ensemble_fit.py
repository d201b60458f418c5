"""Training of many networks at once: rounds of epochs, on several threads where programs are small; stopping; the history."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..nn.model import State
from ..runtime.numpy.threads import get_threads
from . import interrupts
from .history import History
from .members import TrainedMembers
from .state import ROWS_PER_CALL


class StoppingRule:
    """Decides after each epoch which members stop, and which state of each is the one that remains."""

    keeps_best = False
    """Whether the best state of a member remains, and not its last one."""

    def drop(self, parts: Sequence[TrainedMembers]) -> Collection[int]:
        """Return the numbers of more members that stop, after `update` was asked about each part."""
        return ()

    def update(self, part: TrainedMembers, logs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return which members of a part are better than ever before, and which stop, (members of the part,) each.

        ``logs`` has the metrics of the epoch, (members,) of all members each, with NaN for those that have stopped.
        """
        raise NotImplementedError


class Patience(StoppingRule):
    """Members stop after ``patience`` epochs without a lower loss of validation rows, and get their best states back."""

    keeps_best = True

    def __init__(self, count: int, patience: int) -> None:
        self.patience, self.reason = patience, f"val_loss did not improve for {patience} epochs"
        self.lowest, self.stale = np.full(count, math.nan), np.zeros(count, dtype=np.int64)

    def update(self, part: TrainedMembers, logs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        numbers = part.numbers
        loss = logs["val_loss"][numbers]
        better = ~np.isnan(loss) & ~(loss >= self.lowest[numbers])  # NaN: none so far
        self.lowest[numbers] = np.where(better, loss, self.lowest[numbers])
        self.stale[numbers] = np.where(better, 0, self.stale[numbers] + 1)
        return better, self.stale[numbers] >= self.patience


class MemberResult(NamedTuple):
    """A member after training."""

    number: int
    state: State
    steps: int  # in all
    epochs: int  # of this call


class EnsembleFit:
    """Training of ``count`` members, of which each part has some: rounds of some epochs, of all that have not stopped."""

    def __init__(
        self,
        count: int,
        parts: Sequence[TrainedMembers],
        epochs: int,
        rule: StoppingRule | None = None,
        hooks: Sequence[Callable[[int, dict[str, np.ndarray]], Any]] = (),
    ) -> None:
        """``hooks`` get the number of epochs and the metrics; training ends where one returns something true, such as why."""
        self.count, self.parts, self.epochs, self.rule, self.hooks = count, list(parts), epochs, rule, hooks
        watched = bool(hooks) or rule is not None or any(part.held_out is not None for part in parts)
        rows = sum(part.batching.epoch_rows * part.orders.count for part in parts)
        self.together = 1 if watched else max(1, ROWS_PER_CALL // max(1, rows))
        self.history = History()
        self.results: list[MemberResult] = []
        self.done = 0
        self.stopped, self.trained = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)  # epochs

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
                reasons = [answer for answer in self._record(parts, found, count) if answer]
                parts = [part for part in parts if self._continues(part)]
                if reasons:
                    self.history.ended = reasons[0] if isinstance(reasons[0], str) else "a callback ended it"
                    break
                if ctrl_c.pressed:
                    self.history.ended = f"Ctrl-C in epoch {self.done}"
                    break
            if not parts and isinstance(self.rule, Patience):
                self.history.ended = self.rule.reason
        for part in parts:
            self._finish(part, ~self.stopped[part.numbers])
        ways = dict.fromkeys(part.how for part in self.parts if part.how)
        self.history.how = ": ".join(filter(None, (str(backend), ", ".join(ways))))

    def _train(self, epochs: int, part: TrainedMembers) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """Train a part for some epochs; return the losses of each, and the metrics of validation rows after the last."""
        losses = part.train(epochs)
        return losses, {} if part.held_out is None else part.evaluate(part.held_out)

    def _record(self, parts: Sequence[TrainedMembers], found: Sequence[Any], epochs: int) -> list[Any]:
        """Add some epochs to the history, stop members, and call the callbacks."""
        self.trained[np.concatenate([part.numbers[~self.stopped[part.numbers]] for part in parts])] += epochs
        for epoch in range(epochs):
            logs = {"loss": np.full(self.count, np.nan)}
            for part, (figures, metrics) in zip(parts, found, strict=True):
                logs["loss"][part.numbers] = figures[epoch]
                for name, values in metrics.items():
                    logs.setdefault(f"val_{name}", np.full(self.count, np.nan))[part.numbers] = values
            for values in logs.values():
                values[self.stopped] = np.nan
            self.history.add({name: values.copy() for name, values in logs.items()})  # type: ignore[misc]
        if self.rule is not None:
            for part in parts:
                better, stops = self.rule.update(part, logs)
                if self.rule.keeps_best:
                    part.keep_best(better)
                self._stop(part, stops)
            dropped = list(self.rule.drop(parts))
            for part in parts if dropped else ():
                self._stop(part, np.isin(part.numbers, dropped))
        return [hook(self.done, logs) for hook in self.hooks]

    def warn(self, stacklevel: int) -> None:
        """Warn of Ctrl-C, and of the members whose loss is not finite at the end."""
        if self.history.ended.startswith("Ctrl-C"):
            warnings.warn(f"training was ended by {self.history.ended}", RuntimeWarning, stacklevel=stacklevel + 1)
        figures = np.asarray(self.history.get("loss", np.zeros((0, self.count))))
        bad = [k for k, n in enumerate(self.trained) if n and not np.isfinite(figures[n - 1, k])]
        if bad:
            some = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
            warnings.warn(
                f"the loss of {len(bad)} of {self.count} members is not finite ({some}), and so are means over them: "
                "lower their learning rates, or leave them out, as in Ensemble([ens[k] for k in good])",
                RuntimeWarning,
                stacklevel=stacklevel + 1,
            )

    def _continues(self, part: TrainedMembers) -> bool:
        """Let go of the members that have stopped, once they are at least half of the part; return whether any is left."""
        active = ~self.stopped[part.numbers]
        if active.any() and 2 * active.sum() <= len(active):
            part.keep_only(np.flatnonzero(active))
        return bool(active.any())

    def _stop(self, part: TrainedMembers, stops: np.ndarray) -> None:
        stops = stops & ~self.stopped[part.numbers]
        self._finish(part, stops)
        self.stopped[part.numbers[stops]] = True

    def _finish(self, part: TrainedMembers, chosen: np.ndarray) -> None:
        """Take the results of some members of a part, (members of the part,)."""
        per_epoch = (part.steps - part.first_step) // max(1, self.done)
        best = self.rule is not None and self.rule.keeps_best
        for number, state in part.states(np.flatnonzero(chosen), best):
            epochs = int(self.trained[number])
            self.results.append(MemberResult(number, state, part.first_step + per_epoch * epochs, epochs))
