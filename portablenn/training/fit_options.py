"""The settings of one call of ``fit``: validated, and turned into a `Batching`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..callbacks.base import Callback
from ..data.chunks import ACCELERATED_CHUNK_OPERATIONS, CHUNK_OPERATIONS, Batching
from ..data.dataset import Dataset, split_rows
from ..data.sources import BatchStream
from ..data.validation import check_int
from ..runtime.backend import Backend


@dataclass
class FitOptions:
    """Arguments of `Network.fit` by the same names, validated; ``batch_size`` is None with L-BFGS, which takes all rows."""

    epochs: int
    batch_size: int | None
    order: str | Callable[[int], Any]
    validation_split: float
    steps_per_epoch: int | None
    callbacks: Sequence[Callback]
    lbfgs: bool

    def __post_init__(self) -> None:
        self.epochs = check_int(self.epochs, "epochs", 0)
        if not callable(self.order) and self.order not in ("shuffle", "sequential", "random"):
            raise ValueError(f'order must be "shuffle", "sequential", "random" or a function, got {self.order!r}')
        if self.batch_size is not None:
            self.batch_size = check_int(self.batch_size, "batch_size", 1)
        if not (isinstance(self.validation_split, (int, float)) and 0 <= self.validation_split < 1):
            raise ValueError(f"validation_split must be at least 0 and below 1, got {self.validation_split!r}")
        if self.steps_per_epoch is not None:
            self.steps_per_epoch = check_int(self.steps_per_epoch, "steps_per_epoch", 1)
        if not isinstance(self.callbacks, (list, tuple)):
            raise TypeError(f"callbacks must be a list, got {self.callbacks!r}")
        for callback in self.callbacks:
            hooks = ("on_train_begin", "on_epoch_end", "on_train_end")
            if isinstance(callback, type) or not all(hasattr(callback, hook) for hook in hooks):
                fix = "pass an instance" if isinstance(callback, type) else "subclass portablenn.callbacks.Callback"
                raise TypeError(f"{callback!r} is not a callback: {fix}")
        if self.lbfgs:
            self.batch_size = None

    def check_data(self, data: Dataset, held_out: Dataset | None) -> None:
        """Raise `ValueError` unless the arguments suit the kind of data."""
        stream = isinstance(data.x, BatchStream)
        blocks = data.validate is not None and not stream
        if held_out is not None and self.validation_split:
            raise ValueError("validation_data and validation_split are mutually exclusive")
        if self.steps_per_epoch is not None and self.order != "random" and not stream:
            raise ValueError(f'steps_per_epoch requires order="random": with {self.order!r} an epoch is all rows')
        if held_out is not None and isinstance(held_out.x, BatchStream) and held_out.x.single_use and self.epochs > 1:
            raise ValueError("validation_data is a generator, which lasts for one epoch: pass a list, or arrays")
        if stream and data.x.single_use and self.epochs > 1:
            raise ValueError(
                f"a generator lasts for one epoch, got epochs={self.epochs}: pass a function of the epoch number that "
                "returns an iterable, or a list"
            )
        if stream and self.validation_split:
            raise ValueError("validation_split does not work with a stream of batches: pass validation_data")
        if stream and self.lbfgs:
            raise ValueError("L-BFGS uses all rows in each iteration: pass arrays or blocks, or use another optimizer")
        if blocks and self.order not in ("shuffle", "sequential"):
            raise ValueError(f'for blocks order must be "shuffle" or "sequential", got {self.order!r}')
        if blocks and self.batch_size is None and not self.lbfgs:
            raise ValueError("batch_size=None would hold all blocks in memory at once: pass a number, or use LBFGS")

    def rows_per_step(self, rows: int) -> int:
        """Return the number of rows of a step."""
        return min(self.batch_size or rows, rows)

    def split(
        self, data: Dataset, held_out: Dataset | None, backend: Backend, seed: int
    ) -> tuple[Dataset, Dataset | None, np.ndarray | None]:
        """Split data on the backend: those to train and to validate on, and the rows to train on (None for all)."""
        if not self.validation_split:
            return data, held_out, None
        if data.validate is not None:
            return *data.split_blocks(seed, self.validation_split), None
        rows, apart = split_rows(seed, data.rows, self.validation_split)
        held_out = data.take(backend, apart)
        if self.batch_size is None:  # a step takes all rows, without an order
            return data.take(backend, rows), held_out, None
        return data, held_out, rows

    def batching(self, data: Dataset, subset: np.ndarray | None, backend: Backend, parameters: int) -> Batching:
        """Return how epochs are divided into steps on a backend, for a network with this number of parameters.

        ``subset`` are the numbers of the rows to train on, (rows,), or (members, rows); None for all.
        """
        count = data.rows if subset is None else subset.shape[-1]
        batch = self.rows_per_step(count)
        every = {getattr(callback, "every_steps", None) for callback in self.callbacks} - {None}
        pauses = tuple(check_int(n, "every_steps of a callback", 1) for n in every)
        operations = ACCELERATED_CHUNK_OPERATIONS if backend.accelerated else CHUNK_OPERATIONS
        max_steps = max(1, int(operations / (6 * max(1, batch) * max(1, parameters))))
        rows = batch * self.steps_per_epoch if self.steps_per_epoch else count
        return Batching(count, batch, self.order, rows, subset, pauses, max_steps, self.steps_per_epoch)
