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
from ..nn.losses import Custom
from ..nn.model import Batches, Model, State
from ..nn.stack import ModelStack, structure
from ..program.ir import Array
from ..runtime.arrays import to_numpy
from ..runtime.backend import Backend
from ..transforms.compile import compile_for
from .loop import epoch_losses
from .network import Network, joined_metrics
from .prediction import ROWS, computes_rows_apart
from .step import compiled_steps

VALUES = 8
"""Values of the size of a layer's output that a step of a member keeps at the same time, approximately, for each layer."""


ORDERS = 3
"""Arrays of the row numbers of an epoch that are kept for each member, approximately."""

ORDER_ROWS = 1 << 23
"""Row numbers of all members of a block on NumPy's arrays."""

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


def blocks(group: Group, network: Network, backend: Backend, batch: int, rows: int) -> Iterator[Group]:
    """Divide a group of networks like ``network`` into blocks of about equal size, each to be trained by one call.

    Each is trained on ``rows`` rows in batches of ``batch``.
    """
    count = len(group.numbers)
    if backend.members_elements is not None:
        most = max(4, backend.members_elements // (batch * max(network.inputs, *network.widths)))
        most = max(1, min(most, ORDER_ROWS // rows))
    else:
        memory = backend.memory()
        floats = VALUES * batch * (network.inputs + sum(network.widths)) + 4 * network.parameter_count * (
            2 + len(network.optimizer.slots)
        )
        most = count if memory is None else max(1, memory[0] // 2 // (8 * (floats + ORDERS * rows)))
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
        """Number of rows that are predicted at once, so that no value has more than about `ELEMENTS`.

        Where rows may depend on each other it is that of a single network.
        """
        first = self.networks[0]
        if not computes_rows_apart(first.model) or isinstance(first.loss, Custom):
            return ROWS
        return min(ROWS, max(64, ELEMENTS // (len(self.networks) * max(first.inputs, *first.widths))))

    def run(self, method: str, *rows: Any, own_rows: bool = False) -> Any:
        """Return what a method of the model returns for each member, compiled; see `ModelStack.apply`."""

        def of_each(values: tuple[Array, ...], theta: Array, statistics: Array, *rows: Any) -> Any:
            return self.stack.apply(method, values, theta, statistics, *rows, own_rows=own_rows)

        of_each.__name__ = of_each.__qualname__ = f"each_{method}{'_of_own_rows' if own_rows else ''}"
        arguments = self.values, self.state.theta, self.state.statistics, *rows
        with np.errstate(all="ignore"):
            return compile_for(self.backend, of_each, self.stack, *arguments)(*arguments)


class TrainedMembers(Members):
    """Members in training, on rows of one dataset."""

    def __init__(
        self,
        group: Group,
        ensemble: Sequence[Network],
        backend: Backend,
        data: Dataset,
        batching: Batching,
        orders: Callable[[TrainedMembers], Orders],
        held_out: Dataset | None = None,
    ) -> None:
        """``orders`` returns the orders of the rows for some members, of which there are fewer once others have stopped."""
        super().__init__(group, ensemble, backend)
        first = self.networks[0]
        slots = zip(*(n.state.slots for n in self.networks), strict=True)
        self.state = self.state._replace(slots=tuple(self._stacked(some) for some in slots))
        keys = [keys for n in self.networks if (keys := n._layer_keys_on_host()) is not None]
        self.keys = backend.asarray(np.stack(keys), "int32") if keys else None
        mask = first._penalty_mask()
        self.penalty_mask = None if mask is None else backend.asarray(mask)
        self.data, self.batching, self.held_out = data, batching, held_out
        self._orders_of, self.orders = orders, orders(self)
        self.first_step = self.steps = first.steps
        self.epochs = first.epochs
        self.best: State | None = None
        self.improved = np.zeros(len(self.numbers), dtype=bool)  # whether each member has a best state
        self.how = ""

    def train(self, epochs: int) -> list[np.ndarray]:
        """Train for some epochs; return the loss of each, (members,)."""
        losses = []
        for chunk in chunks_of_epochs(self.orders, self.data, self.epochs, epochs):
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

    # Early stopping

    def keep_best(self, better: np.ndarray) -> None:
        """Keep the state of those members that are ``better`` than before, (members,)."""
        self.improved |= better
        if self.best is None or better.all():
            self.best = self.state
            return
        xp = self.backend.xp
        with self.backend.context():
            chosen = self.backend.asarray(better)[:, None]
            self.best = self._mapped(lambda new, old: xp.where(chosen, new, old), self.state, self.best)

    def keep_only(self, kept: np.ndarray) -> None:
        """Go on with some members, given by their positions."""
        index = self.backend.indices(kept)
        take: Callable[[Array], Array] = lambda array: self.backend.xp.take(array, index, axis=0)  # noqa: E731
        with self.backend.context():
            self.state = self._mapped(take, self.state)
            self.best = None if self.best is None else self._mapped(take, self.best)
            self.values = tuple(map(take, self.values))
            self.keys = None if self.keys is None else take(self.keys)
        self.improved = self.improved[kept]
        self.numbers, self.networks = self.numbers[kept], [self.networks[k] for k in kept]
        if self.batching.subset is not None and self.batching.subset.ndim == 2:
            self.batching = replace(self.batching, subset=self.batching.subset[kept])
        self.orders = self._orders_of(self)

    @staticmethod
    def _mapped(function: Callable[..., Array], *states: State) -> State:
        theta, slots, statistics = zip(*states, strict=True)
        return State(
            function(*theta), tuple(function(*some) for some in zip(*slots, strict=True)), function(*statistics)
        )

    def states(self, positions: np.ndarray, best: bool) -> Iterator[tuple[int, State]]:
        """Return the number and a copy of the state, or of the best one, of the members at some positions."""
        xp = self.backend.xp
        for at in map(int, positions):
            state = self.best if best and self.best is not None and self.improved[at] else self.state
            with self.backend.context():  # a view would keep the states of all members alive
                yield (
                    int(self.numbers[at]),
                    self._mapped(lambda array, at=at: xp.asarray(array[at, ...], copy=True), state),
                )
