"""The members of an ensemble that are trained by one program, and how members are divided among programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..data.batching import chunks_of_epochs, row_slices
from ..data.chunks import Batching, Orders
from ..data.dataset import Dataset
from ..nn.model import Batches, Model, State
from ..nn.stack import ModelStack, structure
from ..program.ir import Array
from ..runtime.arrays import to_numpy
from ..runtime.backend import Backend
from ..transforms.compile import compile_for
from .loop import epoch_losses
from .network import Network, joined_metrics
from .orders import orders_for, orders_of_members
from .prediction import ROWS
from .step import compiled_steps

VALUES = 8
"""Values of the size of a layer's output that a step of a member keeps at the same time, approximately, for each layer."""


ELEMENTS = 1 << 24
"""Elements of a value of all members in prediction."""


class Group(NamedTuple):
    """Networks that one program can train: they differ only in seed, state and the values of numbers."""

    numbers: list[int]  # in the ensemble
    stack: ModelStack
    values: np.ndarray  # (numbers that vary, networks)

    def take(self, positions: Sequence[int]) -> Group:
        """Return some of the networks."""
        return Group([self.numbers[i] for i in positions], self.stack, self.values[:, positions])

    def divided(self, key: Callable[[int], Any]) -> Iterator[Group]:
        """Return the networks of each value of a function of their numbers."""
        found: dict[Any, list[int]] = defaultdict(list)
        for position, number in enumerate(self.numbers):
            found[key(number)].append(position)
        return map(self.take, found.values())


class Groups:
    """The groups of an ensemble's networks. What is compiled for their stacks is kept as long as this object has them."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        self._models: list[Model] = []
        self._groups: list[Group] = []

    def of_equal_steps(self) -> Iterator[Group]:
        """Return the groups of networks that have been trained for equally many steps and epochs."""
        for group in self:
            yield from group.divided(lambda k: (self._networks[k].steps, self._networks[k].epochs))

    def __iter__(self) -> Iterator[Group]:
        models = [network.model for network in self._networks]
        if not self._models or any(a is not b for a, b in zip(models, self._models, strict=True)):
            self._models, self._groups = models, list(_groups(models))
        return iter(self._groups)


def _groups(models: Sequence[Model]) -> Iterator[Group]:
    found: dict[Any, list[int]] = defaultdict(list)
    for k, model in enumerate(models):
        alike = structure(model)
        try:
            found[alike].append(k)
        except TypeError:  # a user's optimizer or schedule that has no hash
            found[id(alike), k].append(k)
    for numbers in found.values():
        stack, values = ModelStack.of([models[k] for k in numbers])
        yield Group(numbers, stack, np.asarray(values, dtype=np.float64).reshape(len(values), len(numbers)))


def blocks(group: Group, network: Network, backend: Backend, batch: int) -> Iterator[Group]:
    """Divide a group of networks like ``network`` into blocks of about equal size, each to be trained by one call."""
    count = len(group.numbers)
    if backend.members_elements is not None:
        most = max(4, backend.members_elements // (batch * max(network.inputs, *network.widths)))
    else:
        memory = backend.memory()
        floats = VALUES * batch * (network.inputs + sum(network.widths)) + 4 * network.parameter_count * (
            2 + len(network.optimizer.slots)
        )
        most = count if memory is None else max(1, memory[0] // 2 // (8 * floats))
    parts = -(-count // most)
    return (group.take(range(a, b)) for a, b in pairwise(count * i // parts for i in range(parts + 1)))


class Members:
    """The networks of a group: their states as arrays with an axis of members in front, on one backend."""

    def __init__(self, group: Group, ensemble: Sequence[Network], backend: Backend) -> None:
        self.numbers, self.stack, self.backend = np.asarray(group.numbers), group.stack, backend
        self.networks = networks = [ensemble[k] for k in group.numbers]
        with np.errstate(over="ignore"):  # a rate may be infinite in float32: the loss will show it
            self.values = tuple(backend.asarray(values, networks[0].dtype) for values in group.values)
        theta, statistics = ([getattr(n.state, name) for n in networks] for name in ("theta", "statistics"))
        self.state = State(self._stacked(theta), (), self._stacked(statistics))  # predictions need no slots

    def _stacked(self, arrays: Sequence[Any]) -> Array:
        backend, dtype = self.backend, self.networks[0].dtype
        if all(n.backend == backend for n in self.networks):
            with backend.context():
                return backend.xp.stack(list(arrays))
        return backend.own(np.stack([to_numpy(a) for a in arrays]), dtype)

    def evaluate(self, data: Dataset) -> dict[str, np.ndarray]:
        """Return the metrics of each member on some rows, as `Network.evaluate` does, (members,) each."""
        sums = []
        for part in row_slices(self.backend, data, self.rows_at_once):
            sums.append((part.x.shape[0], part.weights, *self.run("evaluate_batch", *part)))
        return joined_metrics(self.stack.model.loss, sums)

    @property
    def rows_at_once(self) -> int:
        """Number of rows that are predicted at once, so that no value has more than about `ELEMENTS`."""
        first = self.networks[0]
        return min(ROWS, max(64, ELEMENTS // (len(self.networks) * max(first.inputs, *first.widths))))

    def run(self, method: str, *rows: Any) -> Any:
        """Return what a method of the model returns for each member, compiled."""

        def of_each(values: tuple[Array, ...], theta: Array, statistics: Array, *rows: Any) -> Any:
            return self.stack.apply(method, values, theta, statistics, *rows)

        of_each.__name__ = of_each.__qualname__ = f"each_{method}"
        arguments = self.values, self.state.theta, self.state.statistics, *rows
        with np.errstate(all="ignore"):
            return compile_for(self.backend, of_each, self.stack, *arguments)(*arguments)


class TrainedMembers(Members):
    """Members in training."""

    def __init__(
        self, group: Group, ensemble: Sequence[Network], backend: Backend, batching: Batching, share_order: bool
    ) -> None:
        """With ``share_order`` all members take the batches of the ensemble's first network."""
        super().__init__(group, ensemble, backend)
        first = self.networks[0]
        slots = zip(*(n.state.slots for n in self.networks), strict=True)
        self.state = self.state._replace(slots=tuple(self._stacked(some) for some in slots))
        keys = [keys for n in self.networks if (keys := n._layer_keys_on_host()) is not None]
        self.keys = backend.asarray(np.stack(keys), "int32") if keys else None
        mask = first._penalty_mask()
        self.penalty_mask = None if mask is None else backend.asarray(mask)
        self.batching, self.share_order, self._first_seed = batching, share_order, ensemble[0].seed
        self.orders = self._orders()
        self.first_step = self.steps = first.steps
        self.epochs = first.epochs
        self.best: State | None = None
        self.how = ""

    @property
    def order_count(self) -> int:
        """Number of orders of rows."""
        return 1 if self.share_order else len(self.numbers)

    def train(self, data: Dataset, epochs: int) -> list[np.ndarray]:
        """Train for some epochs; return the loss of each, (members,)."""
        losses = []
        for chunk in chunks_of_epochs(self.orders, data, self.epochs, epochs):
            step = self.backend.asarray(np.asarray(self.steps, dtype=np.int32), "int32")
            rows = None if chunk.order is None else self.backend.indices(chunk.order)
            given = Batches(*chunk.samples, rows, self.keys, step), self.penalty_mask, self.values
            run = compiled_steps(self.stack, self.backend, self.state, *given)
            self.state, some = run(chunk.steps, self.state, *given)
            self.how = getattr(run.loop, "how", "")  # type: ignore[attr-defined]
            self.steps += chunk.steps
            losses.append((self.backend.receive(some), chunk.batch_size))
        self.epochs += epochs
        read = [(receive().astype(np.float64), rows) for receive, rows in losses]
        return epoch_losses(read, epochs, self.stack.model.loss.reduction == "mean")

    def _orders(self) -> Orders:
        first = self.networks[0]
        if self.share_order:
            return orders_for(first.model, self.backend, self.batching, self._first_seed)
        return orders_of_members(first.model, self.backend, self.batching, [n.seed for n in self.networks])

    # Early stopping

    def keep_best(self, better: np.ndarray) -> None:
        """Keep the state of those members that are ``better`` than before, (members,)."""
        if self.best is None or better.all():
            self.best = self.state
            return
        xp = self.backend.xp
        with self.backend.context():
            chosen = self.backend.asarray(better)[:, None]
            self.best = self._mapped(lambda new, old: xp.where(chosen, new, old), self.state, self.best)

    def narrowed(self, kept: np.ndarray) -> None:
        """Go on with some members, given by their positions."""
        index = self.backend.indices(kept)
        take: Callable[[Array], Array] = lambda array: self.backend.xp.take(array, index, axis=0)  # noqa: E731
        with self.backend.context():
            self.state = self._mapped(take, self.state)
            self.best = None if self.best is None else self._mapped(take, self.best)
            self.values = tuple(map(take, self.values))
            self.keys = None if self.keys is None else take(self.keys)
        self.numbers, self.networks = self.numbers[kept], [self.networks[k] for k in kept]
        if not self.share_order:
            if self.batching.subset is not None and self.batching.subset.ndim == 2:
                self.batching = replace(self.batching, subset=self.batching.subset[kept])
            self.orders = self._orders()

    @staticmethod
    def _mapped(function: Callable[..., Array], *states: State) -> State:
        theta, slots, statistics = zip(*states, strict=True)
        return State(
            function(*theta), tuple(function(*some) for some in zip(*slots, strict=True)), function(*statistics)
        )

    def states(self, best: bool) -> Iterator[tuple[int, State]]:
        """Return the number of each member and its state."""
        state = self.best if best and self.best is not None else self.state
        for position, number in enumerate(self.numbers):
            yield int(number), self._mapped(lambda array, at=position: array[at, ...], state)
