"""The record of a training: one number an epoch for each figure.

Requires matplotlib for `History.plot` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class History(dict[str, list[float]]):
    """A dict of lists, such as {"loss": […], "val_loss": […]}, one entry an epoch.

    Examples
    --------
    >>> history = History()
    >>> history.add({"loss": 0.5})
    >>> history
    {'loss': [0.5]}

    Attributes
    ----------
    how
        What ran the steps, and in which way, such as "jax on cuda:0: one scan"; with the reason where a faster way failed.
    ended
        Why training ended before the last epoch; "" if it did not.
    resumed
        The step that a checkpoint stood at from which it went on; 0 if there was none.
    evaluations
        How often L-BFGS has computed the loss of all rows; 0 for optimizers that go step by step.
    """

    how: str = ""
    ended: str = ""
    resumed: int = 0
    evaluations: int = 0

    def add(self, logs: Mapping[str, float]) -> None:
        """One epoch's figures."""
        for name, value in logs.items():
            self.setdefault(name, []).append(value)

    def plot(self, ax: Any = None) -> Any:
        """The curves; on ``ax``, or axes of their own, which are returned. Requires matplotlib."""
        from ..plots import loss_curves

        return loss_curves(self, ax)
