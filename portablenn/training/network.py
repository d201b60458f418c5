"""Network: layers, one parameter vector, and what people do with them: fit, predict, evaluate, look inside.

Requires a backend. The mathematics is in `model`, the loop in `training`, the checks in `checks`; here they meet.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..callbacks import Callback, Progress
from ..data import dataset as intake
from ..data import validation
from ..data.batching import WORK_A_CALL, Data, Plan, in_chunks, parts_of
from ..data.sources import Blocks, some_rows
from ..files import model_file
from ..files.safetensors_file import FileFormatError
from ..nn import activations, losses, optimizers
from ..nn.flat_params import FlatParams
from ..nn.layers import Dense, layer_names
from ..nn.model import Model, State, accepted, initial_values
from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of, is_array, to_numpy
from ..runtime.backend import NUMPY, Backend, BackendError
from ..runtime.registry import get_backend
from .history import History
from .loop import Fitting, fingerprint
from .step import Task, compiled

if TYPE_CHECKING:
    from pathlib import Path  # costs an import more than the file is worth

CHUNK = 8192
"""Rows that are predicted or evaluated at once."""


class Network:
    """A feed-forward network.

    Parameters
    ----------
    layers
        `Dense`, `Dropout`, `BatchNorm`, or layers of your own (see `layers`).
    inputs
        Columns of X.
    loss
        A name, a loss object, or a function of (predictions, targets); see `losses`.
    optimizer
        A name or an object; see `optimizers`.
    backend
        What the network runs on: "auto" for where the data are (for NumPy's, lists and tables: what `get_backend` calls
        "auto"), or what `get_backend` takes; a named one wins over the data, which are then moved when ``fit`` begins.
    dtype
        "float32" or "float64".
    seed
        Decides the first weights, the batches and the dropout masks: the same to the bit on every backend.

    Attributes
    ----------
    backend : Backend
        Where the network is now.
    history : History
        Of the last ``fit``.
    training : Fitting or None
        The ``fit`` that is under way, for callbacks.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> X = np.asarray([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
    >>> y = np.asarray([0, 1, 1, 0])
    >>> net = pnn.Network(
    ...     [pnn.Dense(8, "tanh"), pnn.Dense(1)], inputs=2, loss="sigmoid_cross_entropy", optimizer=pnn.Adam(0.05)
    ... )
    >>> history = net.fit(X, y, epochs=300)
    >>> net.predict(X).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        layers: Sequence[Any],
        inputs: int,
        loss: str | losses.Loss | Callable[[Array, Array], Array] = "squared_error",
        optimizer: str | optimizers.Optimizer = "adam",
        backend: Any = "auto",
        dtype: Any = "float32",
        seed: int = 0,
    ) -> None:
        self.inputs = validation.whole(inputs, "inputs", 1)
        self.dtype = validation.float_dtype(dtype)
        self.seed = seed
        self.layers = tuple(_checked_layers(layers))
        self.backend = get_backend(backend)
        self.settled = not _is_auto(backend)
        named = tuple(zip(layer_names(self.layers), self.layers, strict=True))
        params, statistics, self._widths = initial_values(named, self.inputs, seed, self.dtype)
        self.model = Model(
            named,
            FlatParams.of(params),
            FlatParams.of(statistics),
            losses.get(loss),
            optimizers.get(optimizer),
            self.dtype,
        )
        if self.model.loss.exclusive and self.outputs == 1:
            raise ValueError(
                f"the loss {validation.loss_name(self.model.loss)} compares two outputs or more and the last layer has one: give "  # noqa: E501
                'it an output for each class, or use loss="sigmoid_cross_entropy"'
            )
        validation.output_activation(self.layers[-1], self.model.loss)
        zeros = np.zeros(self.model.parameters.size)
        self.state = self._placed(
            State(_vector(params), tuple(zeros for _ in self.model.optimizer.slots), _vector(statistics))
        )
        self.steps = 0
        self.epochs = 0
        self.labels: tuple[int, int] = (0, 1)
        self.multilabel = False
        self.history = History()
        self.training: Fitting | None = None

    # What it is

    @property
    def outputs(self) -> int:
        """Columns of the raw output."""
        return self._widths[-1]

    @property
    def loss(self) -> losses.Loss:
        """The loss."""
        return self.model.loss

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer. Another one takes its place at once, in a callback from the next epoch on.

        What it remembers of past steps stays if the new one remembers the same, such as Adam at another rate; else it
        starts anew.
        """
        return self.model.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: str | optimizers.Optimizer) -> None:
        new = optimizers.get(optimizer)
        if (type(new), new.slots) != (type(self.optimizer), self.optimizer.slots):
            self.state = self.state._replace(slots=self._zero_slots(new))
        self.model = replace(self.model, optimizer=new)

    def reset_optimizer(self) -> None:
        """Set the optimizer's slots and the step count to zero, as in a new network; the parameters stay.

        Examples
        --------
        >>> import portablenn as pnn
        >>> net = pnn.mlp([1, 1], optimizer="adam")
        >>> _ = net.fit([[1.0]], [2.0])
        >>> net.reset_optimizer()
        >>> net.steps, [float(abs(slot).max()) for slot in net.state.slots]
        (0, [0.0, 0.0])
        """
        self.state, self.steps = self.state._replace(slots=self._zero_slots(self.optimizer)), 0

    def _zero_slots(self, optimizer: optimizers.Optimizer) -> tuple[Array, ...]:
        zeros = np.zeros(self.model.parameters.size)
        return tuple(self.backend.own(zeros, self.dtype) for _ in optimizer.slots)

    @property
    def parameters(self) -> dict[str, Array]:
        """Every parameter by name, such as "dense_1.kernel", (inputs, units): views of one vector where there are views."""
        return self.model.parameters.split(self.state.theta, xp=self.backend.xp)

    @property
    def statistics(self) -> dict[str, Array]:
        """What layers learnt of the data without a gradient, such as "batch_norm_1.mean", by name."""
        return self.model.statistics.split(self.state.statistics, xp=self.backend.xp)

    @property
    def parameter_count(self) -> int:
        """How many numbers training changes."""
        return self.model.parameters.size

    def count_params(self) -> int:
        """Return `parameter_count`, under Keras's name."""
        return self.parameter_count

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Set parameters, or statistics, by name; those not named stay.

        Raises
        ------
        ValueError
            For unknown names, other shapes, NaN or infinity; then nothing is changed.
        """
        shapes = self.model.parameters.shapes | self.model.statistics.shapes
        new: dict[str, Array] = {}
        for name, value in values.items():
            if name not in shapes:
                raise ValueError(f"no parameter is called {name!r}: there are {', '.join(shapes)}")
            array = validation.as_array(value, name)
            if tuple(array.shape) != shapes[name]:
                raise ValueError(f"{name} has shape {shapes[name]}, found {tuple(array.shape)}")
            validation.finite(array, name, self.dtype)
            new[name] = array
        self._take_over(new, self.state.slots)

    def _take_over(self, arrays: Mapping[str, Array], slots: Sequence[Array]) -> None:
        """Put checked arrays in the place of those of their names."""
        xp, make = self.backend.xp, self.backend.asarray
        new = {name: make(array, self.dtype) for name, array in arrays.items()}
        self.state = State(
            self.model.parameters.join(xp, self.parameters | new, self.state.theta),
            tuple(self.backend.own(slot, self.dtype) for slot in slots),
            self.model.statistics.join(xp, self.statistics | new, self.state.statistics),
        )

    def __getstate__(self) -> dict[str, Any]:
        """With its arrays on the host, so that it can be copied and pickled wherever it is."""
        facts = {"state": self._placed(self.state, NUMPY), "backend": self.backend.full_name, "training": None}
        return self.__dict__ | facts

    def __setstate__(self, facts: dict[str, Any]) -> None:
        """Back to where it was; if there is no such backend, to what is "auto" here, with a warning."""
        try:
            backend = get_backend(facts["backend"])
        except BackendError as error:
            backend = get_backend("auto")
            warnings.warn(
                f"the backend of before, {facts['backend']!r}, is not here, so the network is on {backend}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
        self.__dict__.update(facts | {"backend": backend})
        self.state = self._placed(self.state)

    def to(self, backend: Any) -> Network:
        """Move the network: parameters, optimizer and statistics; training goes on there, from where it stands.

        Parameters
        ----------
        backend
            What `get_backend` takes, such as "torch:cuda"; then the network stays there, whatever the data are. "auto": it
            moves to what that is now, and to where the data are when ``fit`` is called.

        Returns
        -------
        Network
            This network.

        Raises
        ------
        BackendError
            If there is no such backend; the network is then as it was.

        Examples
        --------
        >>> import portablenn as pnn
        >>> pnn.mlp([2, 3, 1]).to("numpy").backend
        <backend numpy>
        """
        self._move(get_backend(backend))
        self.settled = not _is_auto(backend)
        return self

    def snapshot(self, state: Any = None) -> State:
        """A copy of the parameters, of what the optimizer remembers, and of the statistics, where the network is.

        Parameters
        ----------
        state
            To be copied in place of the network's own: (theta, slots, statistics) of any library.

        Examples
        --------
        >>> import portablenn as pnn
        >>> net = pnn.mlp([1, 1])
        >>> before = net.snapshot()
        >>> _ = net.fit([[1.0]], [2.0])
        >>> net.restore(before)
        """
        return self._placed(self.state if state is None else State(*state))

    def restore(self, state: State) -> None:
        """Go back to a snapshot; its arrays become the network's."""
        self.state = state

    def save(self, path: str | Path) -> None:
        """Write the network to a safetensors file; `portablenn.load` reads it, on any backend. Requires safetensors."""
        model_file.write(path, *self.contents())

    def contents(self) -> tuple[dict[str, Any], dict[str, Array], dict[str, Array]]:
        """What a model file holds: facts, arrays by name, and what the optimizer remembers; see `model_file.write`."""
        facts = {
            "inputs": self.inputs,
            "layers": self.layers,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "dtype": str(self.dtype),
            "seed": int(self.seed),
            "steps": self.steps,
            "epochs": self.epochs,
            "labels": list(self.labels),
            "multilabel": self.multilabel,
            "table": None,
        }
        slots = dict(zip(self.optimizer.slots, self.state.slots, strict=True))
        return facts, self.parameters | self.statistics, slots

    def summary(self) -> str:
        """A table: each layer, the shape of its output, and its parameters.

        Examples
        --------
        >>> import portablenn as pnn
        >>> print(pnn.mlp([784, 16, 16, 10]).summary())
        layer     output        parameters
        ----------------------------------
        input     (rows, 784)
        dense_1   (rows, 16)        12,560
        dense_2   (rows, 16)           272
        dense_3   (rows, 10)           170
        ----------------------------------
        total                       13,002
        """
        rows = [("layer", "output", "parameters"), ("input", f"(rows, {self.inputs})", "")]
        counts: Counter[str] = Counter()
        for name, shape in self.model.parameters.pieces:
            counts[name.rpartition(".")[0]] += int(np.prod(shape))
        for (name, _), width in zip(self.model.layers, self._widths, strict=True):
            rows.append((name, f"(rows, {width})", f"{counts[name]:,}" if counts[name] else ""))
        rows.append(("total", "", f"{self.parameter_count:,}"))
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{wide[0]}}   {b:{wide[1]}}   {c:>{wide[2]}}".rstrip() for a, b, c in rows]
        rule = "-" * (sum(wide) + 6)
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __repr__(self) -> str:
        sizes = "-".join(map(str, (self.inputs, *self._widths)))
        return f"<Network {sizes}, {self.parameter_count:,} parameters, {self.dtype}, {self.backend}>"

    # Training

    def fit(
        self,
        X: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int | None = 32,
        order: str | Callable[[int], Any] = "shuffle",
        validation_data: Any = None,
        validation_split: float = 0.0,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        verbose: bool = False,
        steps_per_epoch: int | None = None,
        resume: str | Path | None = None,
    ) -> History:
        """Train; called again, go on from here.

        Parameters
        ----------
        X
            (rows, inputs), finite real numbers of any dtype and any library; or a sparse matrix of SciPy's, which is made
            dense some rows at a time. Without y: what has targets with its rows, `data.Rows` and other blocks (see
            `sources.Blocks`), of which some are in memory at a time; an iterable of batches (X, y) or (X, y, weights), such as
            a PyTorch DataLoader; or a function of the epoch's number that returns one.
        y
            (rows,) or (rows, outputs), of the same library as X: class numbers from 0 or rows of 0 and 1 for losses of
            classes, values for the others.
        epochs
            How often to go through the rows.
        batch_size
            Rows a step; None for all of them. An iterable of batches decides by itself.
        order
            "shuffle" (a new permutation each epoch), "sequential", or "random" (each batch drawn with replacement). Or a
            function of the epoch's number, from 0, that returns the row numbers in their order, as many as there are rows.
            Of blocks the order is shuffled, and then the rows of some at a time.
        validation_data
            (X, y) or (X, y, weights), blocks, or an iterable of batches, to be evaluated after each epoch.
        validation_split
            Else this share of the rows, chosen by the seed, is set apart for that.
        sample_weight
            (rows,), at least 0.
        class_weight
            {label: weight} or "balanced"; times the sample weights.
        callbacks
            See `callbacks`.
        verbose
            Write a line an epoch.
        steps_per_epoch
            With order "random", how many batches make an epoch; None for as many as it takes for all rows. Of an iterable of
            batches, how many are taken at most.
        resume
            A folder that `callbacks.Checkpoint` wrote to: go on from the newest checkpoint there, bit for bit as if the
            training had never ended, up to ``epochs`` in all. Give everything else as it was given then. An empty or missing
            folder starts anew.

        Returns
        -------
        History
            "loss" of each epoch (the mean over its batches, taken before each step, with the optimizer's l1 and l2), and of
            the validation rows "val_loss" and, for losses of classes, "val_accuracy".

        Raises
        ------
        TypeError, ValueError
            For wrong input; the network is then as it was.
        OutOfMemoryError
            If the device has not the memory; the network is then where the last whole epoch left it.
        """
        epochs = validation.whole(epochs, "epochs", 0)
        if not callable(order) and order not in ("shuffle", "sequential", "random"):
            raise ValueError(f'order is "shuffle", "sequential", "random" or a function, found {order!r}')
        if batch_size is not None:
            batch_size = validation.whole(batch_size, "batch_size", 1)
        if not (isinstance(validation_split, (int, float)) and 0 <= validation_split < 1):
            raise ValueError(f"validation_split is at least 0 and below 1, found {validation_split!r}")
        if validation_split and validation_data is not None:
            raise ValueError("validation_data and validation_split are two ways to say the same: give one")
        if steps_per_epoch is not None:
            steps_per_epoch = validation.whole(steps_per_epoch, "steps_per_epoch", 1)
        speakers = [*validation.callbacks(callbacks), *([Progress()] if verbose else [])]
        full_batch = isinstance(self.optimizer, optimizers.LBFGS)
        given = intake.take(self, X, y, sample_weight, class_weight)
        held_out = None if validation_data is None else intake.take_validation(self, validation_data)
        intake.together(given, held_out, self.optimizer, epochs, batch_size, order, validation_split, steps_per_epoch)
        backend = given.home(self)
        batch = given.rows if batch_size is None or full_batch else min(batch_size, given.rows)
        with intake.memory_told(self, backend, given, batch):
            given = given.on(backend, self.dtype)
            rows: np.ndarray | None = None
            if validation_split and given.check is not None:
                given, held_out = given.split_blocks(self.seed, validation_split)
            elif validation_split:
                rows, apart = intake.set_apart(self.seed, given.rows, validation_split)
                held_out = given.some(backend, apart)
                if full_batch or batch_size is None:
                    given, rows = given.some(backend, rows), None
            held_out_data = None if held_out is None else held_out.on(backend, self.dtype).data
            count = given.rows if rows is None else len(rows)
            batch = count if batch_size is None or full_batch else min(batch_size, count)
            every = {getattr(c, "every_steps", None) for c in speakers} - {None}
            pauses = tuple(validation.whole(n, "every_steps of a callback", 1) for n in every)
            longest = max(1, int(WORK_A_CALL / (6 * max(1, batch) * max(1, self.parameter_count))))
            of_epoch = batch * steps_per_epoch if steps_per_epoch else count
            plan = Plan(rows, count, batch, order, of_epoch, pauses, longest, steps_per_epoch)
            before = dict(self.__dict__)
            try:
                self._move(backend)
                self.labels, self.multilabel = given.labels or self.labels, given.several
                self.history = History()
                task = Task(self.model, backend, given.data, plan, self.seed, self._keys(), self._kernels())
                evaluate = None if held_out_data is None else partial(self._evaluated, held_out_data)
                known = [part for one in (given, held_out) if one is not None for part in (one.x, one.y, one.weights)]
                self.training = Fitting(self, task, epochs, evaluate, partial(fingerprint, known), speakers)
                return self.training.run(resume)
            except BaseException:
                training = self.training
                begun, in_callback = training and training.begun, training and training.failed_in_callback
                if not begun or (self.epochs == before["epochs"] and not in_callback):
                    self.__dict__.update(before)  # nothing was learnt: as if it had not been called
                raise
            finally:
                self.training = None

    # Prediction

    def forward(self, X: Any) -> Array:
        """Raw outputs (logits for losses of classes), (rows, outputs), in the library and on the device of X."""
        return self._back(self._raw(X), X)

    def predict(self, X: Any) -> Array:
        """Labels, (rows,), for losses of classes; else values, (rows, outputs), or (rows,) for one output.

        A network that was trained on rows of several labels returns rows of 0 and 1, (rows, outputs).
        """
        raw = self._raw(X)
        xp = array_namespace(raw)
        if self.multilabel:
            return self._back(xp.astype(raw > 0.0, xp.int32), X)
        if self.loss.targets == "classes":
            classes = self.model.classes(raw)
            if self.outputs == 1 and self.labels == (-1, 1):
                classes = classes * 2 - 1
            return self._back(classes, X)
        values = raw if self.loss.link is None else self.loss.link(raw)
        return self._back(xp.reshape(values, (-1,)) if self.outputs == 1 else values, X)

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, (rows, classes); two columns for a network with one output.

        Raises
        ------
        TypeError
            If the loss has no probabilities.
        """
        loss = self.loss
        if loss.targets != "classes" or loss.link is None:
            raise TypeError(
                f"predict_proba is for losses with probabilities and this network has {validation.loss_name(loss)}: use "
                '"sigmoid_cross_entropy" or "softmax_cross_entropy", or net.predict'
            )
        probability = loss.link(self._raw(X))
        if self.outputs == 1:
            xp = array_namespace(probability)
            probability = xp.concat([1.0 - probability, probability], axis=1)
        return self._back(probability, X)

    def layer_outputs(self, X: Any) -> dict[str, Array]:
        """What each layer makes of some rows, by its name: {"dense_1": (rows, units), …}, as when predicting.

        Examples
        --------
        >>> import portablenn as pnn
        >>> {name: found.shape for name, found in pnn.mlp([2, 3, 1]).layer_outputs([[0.0, 1.0]]).items()}
        {'dense_1': (1, 3), 'dense_2': (1, 1)}
        """
        x = self.backend.asarray(validation.as_array(validation.inputs(X, self.inputs, self.dtype), "X"))
        found = {}
        for last in range(1, len(self.model.layers) + 1):
            part = replace(self.model, layers=self.model.layers[:last])
            run = compiled(part, self.backend, part.forward, self.state.theta, self.state.statistics, x)
            found[self.model.layers[last - 1][0]] = self._back(run(self.state.theta, self.state.statistics, x)[0], X)
        return found

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """The loss, and for losses of classes the accuracy: {"loss": …, "accuracy": …}; X and y as ``fit`` takes them."""
        return self._evaluated(intake.take(self, X, y, sample_weight).on(self.backend, self.dtype).data)

    def _raw(self, X: Any) -> Array:
        parts = []
        for part in self._rows(X):
            run = compiled(self.model, self.backend, self.model.forward, self.state.theta, self.state.statistics, part)
            parts.append(run(self.state.theta, self.state.statistics, part)[0])
        return parts[0] if len(parts) == 1 else self.backend.xp.concat(parts, axis=0)

    def _rows(self, X: Any) -> Iterator[Array]:
        """Rows on the backend, some at a time."""
        if isinstance(X, Blocks):
            for block in range(len(X.sizes)):
                yield from self._rows(X.read(block)[0]) if X.sizes[block] else ()
            return
        x = validation.inputs(X, self.inputs, self.dtype)
        x = self.backend.asarray(x) if is_array(x) else x  # what comes from a source comes later
        for rows in in_chunks(x.shape[0], CHUNK):
            yield self.backend.asarray(some_rows(x, rows))

    def _evaluated(self, data: Data) -> dict[str, float]:
        sums = []
        for part in parts_of(self.backend, data, CHUNK):
            arrays = part.x, part.y, part.weights
            run = compiled(self.model, self.backend, self.model.evaluated, *self.state[::2], *arrays)
            sums.append((part.x.shape[0], part.weights, *run(*self.state[::2], *arrays)))
        sizes = np.asarray([float(self.backend.xp.sum(w)) if w is not None else float(n) for n, w, *_ in sums])
        means = np.asarray([float(loss) for _, _, loss, _ in sums])
        mean = self.loss.reduction == "mean"
        results = {"loss": float((means * sizes).sum() / sizes.sum()) if mean else float(means.sum())}
        if self.loss.targets == "classes":
            results["accuracy"] = float(sum(float(right) for *_, right in sums) / sizes.sum())
        return results

    # Between the caller's arrays and the network's

    def _placed(self, state: State, backend: Backend | None = None) -> State:
        """A copy of the state on a backend, in the network's dtype."""
        home = backend or self.backend
        theta, *slots, statistics = (home.own(v, self.dtype) for v in (state.theta, *state.slots, state.statistics))
        return State(theta, tuple(slots), statistics)

    def _move(self, backend: Backend) -> None:
        if backend != self.backend:
            self.state = self._placed(self.state, backend)
            self.backend = backend

    def _keys(self) -> Array | None:
        """What layers that draw random numbers draw from, (layers, 2); None if none does."""
        if not any("random" in accepted(layer) for layer in self.layers):
            return None
        keys = [random.new_key(self.seed, random.MASKS, i) for i in range(len(self.layers))]
        return self.backend.asarray(np.stack(keys), "int32")

    def _kernels(self) -> Array | None:
        """Ones where the parameter vector holds kernels, which penalties are for; None if there are no penalties."""
        if not self.optimizer.penalizes:
            return None
        pieces = [
            np.full(int(np.prod(shape)), float(name.endswith(".kernel")))
            for name, shape in self.model.parameters.pieces
        ]
        return self.backend.asarray(np.concatenate(pieces), self.dtype)

    def _back(self, array: Array, like: Any) -> Array:
        """A result in the library and on the device of ``like``; NumPy for what is no array."""
        if not is_array(like) or isinstance(like, np.ndarray):
            return to_numpy(array)
        if array_namespace(like) is array_namespace(array) and device_of(like) == device_of(array):
            return array
        return get_backend(like).asarray(array)


def load(path: str | Path, backend: Any = "auto") -> Network:
    """The network that `Network.save` wrote, ready to predict and to train on. Requires safetensors.

    Parameters
    ----------
    path
        A file.
    backend
        What it is to run on; see `get_backend`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    FileFormatError
        If it is not such a file, whole and of a known version.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import portablenn as pnn
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> pnn.mlp([2, 3, 1]).save(path)
    >>> pnn.load(path, backend="numpy")
    <Network 2-3-1, 13 parameters, float32, numpy>
    """
    facts, arrays, slots = model_file.read(path)
    if facts["table"] is not None:
        raise FileFormatError(
            f"{path} holds a model of a table, which prepares its rows: load it with portablenn.TableModel.load"
        )
    return of_contents(path, facts, arrays, slots, backend)


def of_contents(
    path: str | Path, facts: dict[str, Any], arrays: dict[str, np.ndarray], slots: dict[str, np.ndarray], backend: Any
) -> Network:
    """The network that `Network.contents` told of, as `model_file.read` returned it."""
    made = {name: facts[name] for name in ("layers", "inputs", "loss", "optimizer", "dtype", "seed")}
    home = get_backend(backend)
    try:
        network = Network(**made, backend="numpy")
        network._take_over(arrays, [slots[name] for name in network.optimizer.slots])
    except (ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(f"{path} is not a valid model file: {error}") from None
    network.multilabel = facts["multilabel"]
    network.steps, network.epochs, network.labels = facts["steps"], facts["epochs"], tuple(facts["labels"])
    network._move(home)
    network.settled = not _is_auto(backend)
    return network


def mlp(
    sizes: Sequence[int],
    activation: str | activations.Activation = "relu",
    output_activation: str | activations.Activation | None = None,
    use_bias: bool = True,
    kernel_init: Any = None,
    **network: Any,
) -> Network:
    """A network of dense layers.

    Parameters
    ----------
    sizes
        Inputs, hidden layers, outputs.
    activation, output_activation
        Of the hidden layers, and of the last one.
    use_bias
        Whether layers have a bias.
    kernel_init
        An initializer for all kernels; None for He's with relu and its kin, Glorot's else, uniform.
    **network
        What `Network` takes.

    Examples
    --------
    >>> import portablenn as pnn
    >>> pnn.mlp([784, 16, 16, 10], loss="softmax_cross_entropy", optimizer=pnn.SGD(0.1)).parameter_count
    13002
    """
    if not isinstance(sizes, (list, tuple)) or len(sizes) < 2:
        raise ValueError(f"sizes are inputs, hidden layers if any, and outputs, found {sizes!r}")
    rectified = activation in ("relu", "leaky_relu", "elu", "gelu", "silu")
    init = kernel_init if kernel_init is not None else "he_uniform" if rectified else "glorot_uniform"
    hidden = [Dense(units, activation, use_bias, init) for units in sizes[1:-1]]
    last = Dense(sizes[-1], output_activation, use_bias, kernel_init if kernel_init is not None else "glorot_uniform")
    return Network([*hidden, last], inputs=sizes[0], **network)


def _is_auto(backend: Any) -> bool:
    return isinstance(backend, str) and backend == "auto"


def _checked_layers(layers: Sequence[Any]) -> Iterator[Any]:
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"layers is a list of at least one layer, found {layers!r}")
    for layer in layers:
        if not (hasattr(layer, "init") and hasattr(layer, "apply")) or isinstance(layer, type):
            raise TypeError(f"a layer has init(key, inputs) and apply(xp, params, x), found {layer!r}")
        yield layer


def _vector(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(a.reshape(-1) for a in arrays.values())])
