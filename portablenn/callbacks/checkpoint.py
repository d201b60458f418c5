"""The callback that writes checkpoints; it requires safetensors (the extra "files")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..data.validation import check_int
from ..files import checkpoint
from .base import Callback

if TYPE_CHECKING:
    from pathlib import Path


class Checkpoint(Callback):
    """Write the state of the training to a folder, from which ``fit(…, resume=folder)`` continues bit for bit.

    It also writes one when Ctrl-C or another callback ends training; see `portablenn.files.checkpoint`.

    Parameters
    ----------
    folder
        Created if needed; for one run only.
    every_steps
        Steps between checkpoints, counted from the beginning of each epoch (so that calls have few sizes).
    every_epochs
        Epochs between checkpoints; None for 1, or for never if ``every_steps`` is given.
    keep
        Number of checkpoints to keep, the newest.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> X, y, folder = np.eye(4), np.arange(4.0), tempfile.mkdtemp()
    >>> whole = pnn.mlp([4, 3, 1])
    >>> _ = whole.fit(X, y, epochs=6, batch_size=1)
    >>> half, rest = pnn.mlp([4, 3, 1]), pnn.mlp([4, 3, 1])
    >>> _ = half.fit(X, y, epochs=3, batch_size=1, callbacks=[pnn.callbacks.Checkpoint(folder)])
    >>> _ = rest.fit(X, y, epochs=6, batch_size=1, resume=folder)
    >>> bool(np.all(rest.predict(X) == whole.predict(X)))
    True
    """

    def __init__(
        self, folder: str | Path, every_steps: int | None = None, every_epochs: int | None = None, keep: int = 3
    ) -> None:
        self.folder = folder
        self.every_steps = None if every_steps is None else check_int(every_steps, "every_steps", 1)
        self.every_epochs = None if every_epochs is None else check_int(every_epochs, "every_epochs", 1)
        if every_steps is None and every_epochs is None:
            self.every_epochs = 1
        self.keep = check_int(keep, "keep", 1)
        self._written = 0

    def on_train_begin(self, network: Any, epochs: int) -> None:
        """Create the folder, and check that it can be written to and holds no checkpoints of another run."""
        checkpoint.prepare(self.folder)
        self._written = network.steps
        if checkpoint.list_paths(self.folder) and not network.history.resumed:
            raise ValueError(
                f"{self.folder} holds checkpoints of another run: pass "
                f"resume={str(self.folder)!r}, or choose another folder"
            )

    def on_snapshot_ready(self, network: Any, training: Any) -> None:
        if training.ended and training.state_replaced:
            return  # such as by StopOnNaN: this state is not that of any step
        state = training.train_state
        by_steps = self.every_steps is not None and state.steps - self._written >= self.every_steps
        by_epochs = self.every_epochs is not None and not state.steps_done and training.epoch % self.every_epochs == 0
        if by_steps or by_epochs or training.ended or training.epoch == training.epochs:
            self._written = state.steps
            checkpoint.write(self.folder, state.steps, training.snapshot(), self.keep)
