"""History: the metrics of each epoch of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class History(dict[str, list[float]]):
    """A dict of lists, such as {"loss": […], "val_loss": […]}, one entry per epoch.

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 0.5})
    >>> history
    {'loss': [0.5]}

    Attributes
    ----------
    how
        How the backend executed the steps, such as "jax on cuda:0: one scan"; with the reason where a faster path failed. On
        NumPy also the number of threads of large matrix products, if there are any: "numpy: plan, large products on 2
        threads".
    ended
        Why training ended before the last epoch; "" if it did not.
    resumed
        The step of the checkpoint that the run was resumed from; 0 if there was none.
    evaluations
        How often L-BFGS has computed the loss of all rows; 0 for other optimizers.
    """

    how: str = ""
    ended: str = ""
    resumed: int = 0
    evaluations: int = 0

    def add(self, logs: Mapping[str, float]) -> None:
        """Append the metrics of an epoch."""
        for name, value in logs.items():
            self.setdefault(name, []).append(value)

    def plot(self, ax: Any = None) -> Any:
        """Draw the curves on ``ax`` or new axes, and return these. Requires matplotlib."""
        from ..plots import loss_curves

        return loss_curves(self, ax)
