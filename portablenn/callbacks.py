"""Callbacks: what is told how training goes, after each epoch.

Requires rich for `ProgressBar` alone.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any, TextIO


class Callback:
    """Does nothing; override what you need.

    Examples
    --------
    >>> class Stop(Callback):
    ...     def on_epoch_end(self, network, epoch, logs):
    ...         return logs["loss"] < 0.1  # True ends the training
    """

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> bool | None:
        """After epoch ``epoch``, from 1, with its entry of the history; True ends the training."""
        return None

    def on_train_end(self, network: Any) -> None:
        """After the last epoch, also when an error or Ctrl-C ended it."""


def described(logs: dict[str, float]) -> str:
    """One line of figures: "loss 0.1234  val_accuracy 0.9150"."""
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())


class Progress(Callback):
    """A line an epoch, or every ``every`` epochs; what ``verbose=True`` means.

    Examples
    --------
    >>> import portablenn as pnn
    >>> net = pnn.mlp([1, 1], optimizer=pnn.SGD(0.0), kernel_init="zeros")
    >>> history = net.fit([[1.0]], [2.0], callbacks=[Progress()])  # doctest: +ELLIPSIS
    epoch 1/1  loss 4.0000  ... s
    """

    def __init__(self, every: int = 1, file: TextIO | None = None) -> None:
        if every < 1:
            raise ValueError(f"every is a positive number of epochs, found {every!r}")
        self.every = every
        self.file = file
        self.epochs = 0
        self.start = 0.0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Start the clock."""
        self.epochs, self.start = epochs, time.perf_counter()

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        """Write the line."""
        if epoch % self.every == 0 or epoch == self.epochs:
            seconds = time.perf_counter() - self.start
            print(f"epoch {epoch}/{self.epochs}  {described(logs)}  {seconds:.1f} s", file=self.file or sys.stdout)


class ProgressBar(Callback):
    """A live bar with the figures of the last epoch; plain lines where the output is no terminal. Requires rich."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.lines: Progress | None = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Show the bar."""
        if importlib.util.find_spec("rich") is None:
            raise ImportError('the progress bar needs rich: pip install "portablenn[cli]"')
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console()
        if not console.is_terminal:
            self.lines = Progress(every=max(1, epochs // 10))
            self.lines.on_train_begin(network, epochs)
            return
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[figures]}"))
        self.bar = Bar(TextColumn("epoch"), *columns, console=console)
        self.task = self.bar.add_task("training", total=epochs, figures="")
        self.bar.start()

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        """Move it on."""
        if self.lines is not None:
            self.lines.on_epoch_end(network, epoch, logs)
        else:
            self.bar.update(self.task, completed=epoch, figures=described(logs))

    def on_train_end(self, network: Any) -> None:
        """Leave it standing."""
        if self.bar is not None:
            self.bar.stop()
