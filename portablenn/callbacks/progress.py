"""Progress of training as plain lines, or as a bar (which requires rich)."""

from __future__ import annotations

import importlib.util
import math
import sys
import time
from typing import Any, TextIO

from .base import Callback, Steps, described


class Progress(Callback):
    """Print a line every ``every`` epochs, and after ``seconds`` without one; ``verbose=True`` uses it.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0), kernel_init="zeros")
    >>> history = net.fit([[1.0]], [2.0], callbacks=[Progress()])  # doctest: +ELLIPSIS
    epoch 1/1  loss 4.0000  ... s
    """

    def __init__(self, every: int = 1, file: TextIO | None = None, seconds: float = math.inf) -> None:
        if every < 1:
            raise ValueError(f"every must be a positive number of epochs, got {every!r}")
        self.every, self.seconds = every, seconds
        self.file = file
        self.epochs = 0
        self.start = self.last = 0.0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        self.epochs, self.start = epochs, time.perf_counter()
        self.last = self.start

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        now = time.perf_counter()
        if epoch % self.every == 0 or epoch == self.epochs or now - self.last > self.seconds:
            seconds, self.last = now - self.start, now
            print(f"epoch {epoch}/{self.epochs}  {described(logs)}  {seconds:.1f} s", file=self.file or sys.stdout)


class ProgressBar(Callback):
    """A live bar with the metrics of the last epoch; plain lines if the output is not a terminal. Requires rich."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.lines: Progress | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        if importlib.util.find_spec("rich") is None:
            raise ImportError('the progress bar needs rich: pip install "portablenn[cli]"')
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console()
        self.lines = self.bar = None
        if not console.is_terminal:
            self.lines = Progress(every=max(1, epochs // 10), seconds=5.0)
            self.lines.on_train_begin(network, epochs)
            return
        count = TextColumn("{task.fields[epoch]}/{task.total}")
        columns = (BarColumn(), count, TimeRemainingColumn(), TextColumn("{task.fields[metrics]}"))
        self.bar = Bar(TextColumn("epoch"), *columns, console=console)
        self.task = self.bar.add_task("training", total=epochs, metrics="", epoch=0)
        self.bar.start()

    def on_steps_end(self, network: Any, steps: Steps) -> None:
        if self.bar is not None and steps.total:
            self.bar.update(self.task, completed=steps.epoch - 1 + steps.last / steps.total)

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        if self.lines is not None:
            self.lines.on_epoch_end(network, epoch, logs)
        else:
            self.bar.update(self.task, completed=epoch, epoch=epoch, metrics=described(logs))

    def on_train_end(self, network: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
