"""The callback that plots curves during training, in a notebook; it requires matplotlib and IPython."""

from __future__ import annotations

from typing import Any

from .base import Callback


class LivePlot(Callback):
    """Show `portablenn.plots.loss_curves` under a notebook's cell, redrawn every ``every`` epochs."""

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every must be a positive number of epochs, got {every!r}")
        self.every = every
        self._handle: Any = None

    def on_train_begin(self, network: Any, epochs: int) -> None:
        try:
            import IPython  # noqa: F401
        except ImportError as error:
            raise ImportError("LivePlot needs a notebook (IPython): use ProgressBar elsewhere") from error
        self._handle, self.epochs = None, epochs

    def on_epoch_end(self, network: Any, epoch: int, logs: dict[str, float]) -> None:
        if epoch % self.every and epoch != self.epochs:
            return
        from IPython.display import display
        from matplotlib.figure import Figure

        from ..plots import loss_curves

        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        loss_curves(network.history, figure.add_subplot())
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
