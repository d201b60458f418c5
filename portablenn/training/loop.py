"""The training loop: one call of ``Network.fit`` from its first step to its last, and the callbacks on the way."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from ..callbacks.base import Callback, Steps
from ..data.batching import chunks_of_epoch, chunks_of_epochs
from ..data.chunks import Chunk, Orders, shapes_of
from ..files import checkpoint
from ..nn.model import Model, State
from ..nn.optimizers import LBFGS
from ..program.ir import Array
from ..runtime.arrays import is_array
from ..transforms.compile import read_by
from . import interrupts
from .history import History
from .orders import orders_for
from .state import ROWS_PER_CALL, Run, StepResult, TrainState
from .step import compiled_steps


class TrainingLoop(Run):
    """One call of ``fit``; callbacks find it as ``network.training``."""

    def snapshot(self) -> checkpoint.Snapshot:
        """Return everything that the rest of the run depends on; see `resume.snapshot`."""
        from . import resume  # here, because few runs need it

        return resume.snapshot(self)

    def run(self, folder: Any = None) -> History:
        """Train until the last epoch, or until a callback or Ctrl-C ends it; resume from the newest checkpoint of a folder."""
        saved = None if folder is None else checkpoint.newest(folder)
        hooks = {getattr(type(callback), "on_snapshot_ready", None) for callback in self.callbacks}
        if saved is not None or hooks - {None, Callback.on_snapshot_ready}:
            from . import resume

            resume.about(self)  # describes the data before the first step, not at the first checkpoint
            if saved is not None:
                resume.restore(self, saved)
        started: list[Callback] = []
        try:
            for callback in self.callbacks:
                started.append(callback)
                callback.on_train_begin(self.network, self.epochs)
            if saved is not None:
                resume.restore_callbacks(self, saved)
            if not self.ended:
                self._train()
        except BaseException:
            with contextlib.suppress(Exception):
                self._read_losses()
            self._end(started, quiet=True)
            raise
        self._read_losses()
        self._end(started)
        self.history.ended = self.ended
        self._warn()
        return self.history

    # Steps

    @property
    def _watched(self) -> bool:
        """Whether something looks at the network between epochs."""
        return bool(self.callbacks) or self.evaluate is not None

    def _step_results(self) -> Generator[StepResult, None, None]:
        """Train to the end of the last epoch; without callbacks or validation one call may have several epochs."""
        orders, batching = orders_for(self.network.model, self.backend, self.batching, self.network.seed), self.batching
        steps_per_call = batching.max_steps * batching.batch_size
        together = is_array(self.data.x) and not self._watched and batching.epoch_rows <= steps_per_call
        first, last = self.train_state.epochs, self.train_state.epochs + self.epochs - self.epoch
        compiled = _CompiledSteps(self)
        while (epoch := self.train_state.epochs) < last:
            if together and not self.train_state.steps_done:
                count = max(1, min(last - epoch, min(ROWS_PER_CALL, steps_per_call) // batching.epoch_rows))
                if epoch == first and self.backend.pads_orders:
                    count = 1  # the device begins while the orders of other epochs are made
                state, step, losses = self.train_state.state, self.train_state.steps, []
                for chunk in chunks_of_epochs(orders, self.data, epoch, count):
                    state, some = compiled.run(chunk, state, step)
                    step += chunk.steps
                    losses.append((some, chunk.batch_size))
                yield StepResult(TrainState(state, epoch + count, step), losses, count, how=compiled.how)
                continue
            yield from self._epoch_results(orders, compiled)
            if self.train_state.epochs == epoch:
                raise ValueError(f"there is no batch to train on in epoch {epoch} (from 0): the iterable is empty")

    def _epoch_results(self, orders: Orders, compiled: _CompiledSteps) -> Generator[StepResult, None, None]:
        """Train to the end of the current epoch, chunk by chunk."""
        epoch, done = self.train_state.epochs, self.train_state.steps_done
        chunks = chunks_of_epoch(orders, self.backend, self.data, epoch, done)
        with contextlib.closing(chunks):
            for chunk, is_last in chunks:
                step = self.train_state.steps
                state, losses = compiled.run(chunk, self.train_state.state, step)
                done += chunk.steps
                counters = (epoch + 1, step + chunk.steps, 0) if is_last else (epoch, step + chunk.steps, done)
                yield StepResult(
                    TrainState(state, *counters), [(losses, chunk.batch_size)], int(is_last), chunk.row_numbers,
                    compiled.how, chunk.multilabel,
                )  # fmt: skip

    # Between steps

    def _train(self) -> None:
        steps = self._step_results()
        if isinstance(self.model.optimizer, LBFGS):
            from . import lbfgs_fit

            steps = lbfgs_fit.minimize(self)
        with interrupts.catch_ctrl_c() as ctrl_c, contextlib.closing(steps) as results:
            for result in results:
                self._process(result, ctrl_c)
                if self.ended:
                    break
            if not self.ended and self.epoch < self.epochs:
                self.ended = "the tolerance of L-BFGS, or its budget, was reached"
                self._call("on_snapshot_ready", self)
            if ctrl_c.pressed and not self.interrupted:
                self.interrupted = True
                self.ended = "; ".join(filter(None, (self.ended, "Ctrl-C after the last epoch")))

    def _process(self, result: StepResult, ctrl_c: interrupts.CtrlC) -> None:
        """Take over the state after some steps, record the history, and call the callbacks."""
        steps = self._adopt(result)
        reasons = self._call("on_steps_end", steps) if self.callbacks else []
        if result.epochs:
            reasons += self._end_epochs(result.epochs)
        self.ended = next((reason for _, reason in reasons), "")
        self.interrupted = bool(reasons) and all(getattr(callback, "interrupts", False) for callback, _ in reasons)
        if ctrl_c.pressed and not self.ended:
            self.interrupted, self.ended = True, f"Ctrl-C in epoch {self.epoch + (not result.epochs)}"
        self._adopt_changes_of_callbacks(result.train_state.state)
        self._call("on_snapshot_ready", self)
        self.train_state = self.train_state._replace(state=self.network.state)

    def _adopt(self, result: StepResult) -> Steps:
        """Take over the state after some steps; return their description for callbacks."""
        network, first = self.network, self.train_state.steps_done
        self.started, self.train_state = True, result.train_state
        network.state, network.epochs, network.steps = result.train_state[:3]
        network.multilabel = network.multilabel or result.multilabel
        self.history.how = f"{self.backend}: {result.how}" if result.how else str(self.backend)
        self.history.evaluations = self.evaluations
        self.losses += result.losses
        last = first + sum(int(losses.shape[0]) for losses, _ in result.losses)
        total = self.batching.steps_per_epoch
        return Steps(self.epoch + 1, first + 1, last, total, network.steps, result.losses, result.row_numbers)

    def _end_epochs(self, epochs: int) -> list[tuple[Callback, str]]:
        """Record the metrics of epochs that have ended; return the callbacks that end training, with their reasons."""
        self.unread.append(([(self.backend.receive(some), rows) for some, rows in self.losses], epochs))
        self.losses = []
        self.epoch += epochs
        if not self._watched and self.epoch < self.epochs:  # then the next steps begin before these losses are read
            self._read_losses(but=1)
            return []
        return self._call("on_epoch_end", self.epoch, self._read_losses())

    def _read_losses(self, but: int = 0) -> dict[str, float]:
        """Record the metrics of epochs that have ended, but for the last calls; return those of the last epoch."""
        logs: dict[str, float] = {}
        while len(self.unread) > but:
            received, epochs = self.unread.pop(0)
            read = [(receive().astype(np.float64), rows) for receive, rows in received]
            for loss in epoch_losses(read, epochs, self.model.loss.reduction == "mean"):
                logs = {"loss": loss}
                if self.evaluate is not None:
                    logs |= {f"val_{name}": value for name, value in self.evaluate().items()}
                self.history.add(logs)
        return logs

    def _adopt_changes_of_callbacks(self, state: State) -> None:
        """Take over what callbacks did to the network, or raise `ValueError` if training cannot continue with it."""
        network = self.network
        self.state_replaced = network.state is not state
        if self.state_replaced and self.train_state.search is not None and not self.ended:
            raise ValueError("a callback changed the parameters, which L-BFGS does not allow: use another optimizer")
        if network.optimizer.slots != self.slots:
            raise ValueError(
                f"a callback replaced the optimizer by {network.optimizer}, which has other slots than the one that this "
                "fit began with: replace it between calls of fit"
            )
        self.train_state = self.train_state._replace(state=network.state)

    def _call(self, hook: str, *arguments: Any) -> list[tuple[Callback, str]]:
        """Call a hook of each callback that has it; return the callbacks that end training, with their reasons."""
        reasons = []
        for callback in self.callbacks:
            method = getattr(callback, hook, None)
            try:
                answer = method(self.network, *arguments) if method else None
            except BaseException:
                self.failed_in_callback = True
                raise
            if answer:
                reason = answer if isinstance(answer, str) else f"{type(callback).__name__} ended it"
                reasons.append((callback, reason))
        return reasons

    def _end(self, callbacks: Sequence[Callback], quiet: bool = False) -> None:
        """Call ``on_train_end`` of all callbacks that were started, even if one fails."""
        failed: BaseException | None = None
        for callback in callbacks:
            try:
                callback.on_train_end(self.network)
            except BaseException as error:
                failed = failed or error
        if failed is not None and not quiet:
            self.failed_in_callback = True
            raise failed

    def _warn(self) -> None:
        if "Ctrl-C" in self.ended and self.started:
            warnings.warn(f"training was ended by {self.ended}", RuntimeWarning, stacklevel=4)
        losses = self.history.get("loss", ())
        bad = next((i for i, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
        if bad is not None and not (self.ended and bad == len(losses)):  # else a callback has ended it for that
            warnings.warn(
                f"the loss is {losses[bad - 1]} from epoch {bad} on: lower the learning rate, scale the data, or bound the "
                "gradient with clip_norm",
                RuntimeWarning,
                stacklevel=4,
            )


class _CompiledSteps:
    """Runs chunks by compiled steps, looked up once for each shape: the program cache takes longer than a small step."""

    def __init__(self, loop: TrainingLoop) -> None:
        self.loop = loop
        self._known: dict[Any, tuple[Callable[..., Any], Model, Any]] = {}
        self._ways: dict[str, None] = {}

    @property
    def how(self) -> str:
        """How the backend executed the steps so far."""
        return ", ".join(self._ways)

    def run(self, chunk: Chunk, state: State, step: int) -> tuple[State, Array]:
        """Return the state after a chunk, and the loss of each step, shape (steps,)."""
        loop, model = self.loop, self.loop.model
        batches = loop.batches(chunk.samples, chunk.order, step)
        shapes = (id(model), *shapes_of(chunk.samples), None if chunk.order is None else chunk.order.shape)
        known = self._known.get(shapes)
        if known is None or known[2][0] != read_by(model)[0]:
            run = compiled_steps(model, loop.backend, state, batches, loop.penalty_mask)
            # the model and what was read are kept alive, so that their ids stay their own
            known = run, model, read_by(model)
            self._known[shapes] = known
        run = known[0]
        state, losses = run(chunk.steps, state, batches, loop.penalty_mask)
        self._ways[getattr(run.loop, "how", "")] = None  # type: ignore[attr-defined]
        return state, losses


def epoch_losses(losses: Sequence[tuple[np.ndarray, int]], epochs: int, mean: bool) -> list[Any]:
    """Reduce the losses of steps (see `Run.losses`) to one for each of some epochs of equal length.

    It is the mean over rows, or without ``mean`` the sum over steps; of losses (steps, members) an array, (members,).

    Examples
    --------
    >>> epoch_losses([(np.asarray([1.0, 2.0]), 4), (np.asarray([5.0]), 2)], 1, True)
    [2.2]
    """
    values = np.concatenate([some for some, _ in losses])
    if mean:
        rows = np.concatenate([np.full(len(some), n) for some, n in losses])
        values = (values.T * rows / (rows.sum() / epochs)).T
    sums = values.reshape(epochs, -1, *values.shape[1:]).sum(axis=1)
    return [one if one.ndim else float(one) for one in sums]
