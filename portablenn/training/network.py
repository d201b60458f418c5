"""Network: layers with one parameter vector, and the methods that train, evaluate, inspect and save them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..callbacks import Callback, Progress
from ..data import validation
from ..data.batching import row_slices
from ..data.dataset import Dataset, Spec, make_dataset, make_validation_dataset
from ..data.sources import Blocks
from ..files import model_file
from ..files.safetensors_file import FileFormatError
from ..nn import losses, optimizers
from ..nn.flat_params import FlatParams
from ..nn.layers import layer_names
from ..nn.model import Model, State, accepted, initial_values
from ..program.ir import Array
from ..runtime.arrays import array_namespace, device_of, is_array, to_numpy
from ..runtime.backend import NUMPY, Backend, BackendError
from ..runtime.registry import get_backend
from ..transforms.compile import compile_for
from .fit_options import FitOptions
from .history import History
from .loop import TrainingLoop
from .prediction import ROWS, Predictor, Programs, predict

if TYPE_CHECKING:
    from pathlib import Path  # costs an import more than the file is worth


class Network:
    """A feed-forward network.

    Parameters
    ----------
    layers
        `Dense`, `Dropout`, `BatchNorm`, or custom layers (see `layers`).
    inputs
        Columns of X.
    loss
        A name, a loss object, or a function of (predictions, targets); see `losses`.
    optimizer
        A name or an object; see `optimizers`.
    backend
        "auto": the library and device of the data; for NumPy arrays, lists and data frames what ``get_backend("auto")``
        returns. Anything else that `get_backend` takes fixes the backend, and ``fit`` moves the data there.
    dtype
        "float32" or "float64".
    precision
        To what the factors of the layers' matrix products are rounded, for tensor cores: "tf32" (11 significant bits),
        "bfloat16" (8 bits) or None (not at all). Parameters, sums and everything else stay float32, as dtype then is.
    seed
        Decides initial weights, batches and dropout masks, which are bit-identical on every backend.

    Attributes
    ----------
    backend : Backend
        The current backend.
    history : History
        Of the last ``fit``.
    training : TrainingLoop or None
        The current call of ``fit``, for callbacks.

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
        precision: str | None = None,
    ) -> None:
        self.inputs = validation.check_int(inputs, "inputs", 1)
        self.dtype = validation.check_float_dtype(dtype)
        self.seed = seed
        _check_layers(layers)
        self.layers = tuple(layers)
        self.backend = get_backend(backend)
        self.pinned = not _is_auto(backend)
        named = tuple(zip(layer_names(self.layers), self.layers, strict=True))
        params, statistics, self._widths = initial_values(named, self.inputs, seed, self.dtype)
        flat = FlatParams.of(params), FlatParams.of(statistics)
        self.model = Model(named, *flat, losses.get(loss), optimizers.get(optimizer), self.dtype, precision)
        validation.check_last_layer(self.layers[-1], self.outputs, self.model.loss)
        theta = flat[0].join(NUMPY.xp, params, np.zeros(0))
        kept = flat[1].join(NUMPY.xp, statistics, np.zeros(0))
        slots = tuple(np.zeros_like(theta) for _ in self.optimizer.slots)
        self.state = self._state_on(State(theta, slots, kept))
        self.steps = self.epochs = 0
        self.labels: tuple[int, int] = (0, 1)
        self.multilabel = False
        self.history = History()
        self.training: TrainingLoop | None = None
        self.programs = Programs()

    # Properties

    @property
    def outputs(self) -> int:
        return self._widths[-1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of outputs of each layer."""
        return tuple(self._widths)

    @property
    def spec(self) -> Spec:
        """What the network accepts as data."""
        return Spec(self.inputs, self.outputs, self.loss, self.dtype)

    @property
    def precision(self) -> str | None:
        return self.model.precision

    @property
    def loss(self) -> losses.Loss:
        return self.model.loss

    @property
    def optimizer(self) -> optimizers.Optimizer:
        """The optimizer, which can be replaced at any time; in a callback the new one is used from the next epoch on.

        Its slots are kept if the new optimizer has the same ones, such as Adam with another rate; else they start at zero.
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
        >>> net.steps, [float(slot[0]) for slot in net.state.slots]
        (0, [0.0, 0.0])
        """
        self.state, self.steps = self.state._replace(slots=self._zero_slots(self.optimizer)), 0

    def _zero_slots(self, optimizer: optimizers.Optimizer) -> tuple[Array, ...]:
        zeros = np.zeros(self.model.parameters.size)
        return tuple(self.backend.own(zeros, self.dtype) for _ in optimizer.slots)

    @property
    def parameters(self) -> dict[str, Array]:
        """All parameters by name, such as "dense_1.kernel" of shape (inputs, units): views of one vector where possible."""
        return self.model.parameters.split(self.backend.xp, self.state.theta)

    @property
    def statistics(self) -> dict[str, Array]:
        """Values that layers learn without a gradient, such as "batch_norm_1.mean", by name."""
        return self.model.statistics.split(self.backend.xp, self.state.statistics)

    @property
    def parameter_count(self) -> int:
        """Number of trainable parameters."""
        return self.model.parameters.size

    def count_params(self) -> int:
        """Return `parameter_count`, under Keras's name."""
        return self.parameter_count

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Set parameters or statistics by name; others are kept.

        Raises
        ------
        ValueError
            If a name is unknown, a shape is wrong, or a value is NaN or infinite; then nothing is changed.
        """
        shapes = self.model.parameters.shapes | self.model.statistics.shapes
        new: dict[str, Array] = {}
        for name, value in values.items():
            if name not in shapes:
                raise ValueError(f"unknown parameter {name!r}: expected one of {', '.join(shapes)}")
            array = validation.check_array(value, name)
            if tuple(array.shape) != shapes[name]:
                raise ValueError(f"expected {name} of shape {shapes[name]}, got {tuple(array.shape)}")
            validation.check_finite(array, name, self.dtype)
            new[name] = array
        self._set_arrays(new, self.state.slots)

    def _set_arrays(self, arrays: Mapping[str, Array], slots: Sequence[Array]) -> None:
        """Replace parameters and statistics by validated arrays, and the optimizer slots."""
        xp = self.backend.xp
        new = {name: self.backend.asarray(array, self.dtype) for name, array in arrays.items()}
        self.state = State(
            self.model.parameters.join(xp, self.parameters | new, self.state.theta),
            tuple(self.backend.own(slot, self.dtype) for slot in slots),
            self.model.statistics.join(xp, self.statistics | new, self.state.statistics),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes with all arrays on the host, for copying and pickling."""
        state, backend = self._state_on(self.state, NUMPY), self.backend.full_name
        return self.__dict__ | {"state": state, "backend": backend, "training": None, "programs": Programs()}

    def __setstate__(self, facts: dict[str, Any]) -> None:
        """Move to the previous backend; warn and use "auto" if it is not available."""
        try:
            backend = get_backend(facts["backend"])
        except BackendError as error:
            backend = get_backend("auto")
            message = f"backend {facts['backend']!r} is not available, using {backend}: {error}"
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        self.__dict__.update(facts | {"backend": backend})
        self.state = self._state_on(self.state)

    def to(self, backend: Any) -> Network:
        """Move parameters, optimizer slots and statistics to another backend, where training continues; return this network.

        Parameters
        ----------
        backend
            What `get_backend` takes, such as "torch:cuda": the network then stays there, whatever the data are. "auto": it
            moves to the current default, and to the backend of the data when ``fit`` is called.

        Raises
        ------
        BackendError
            If the backend does not exist; the network is then unchanged.

        Examples
        --------
        >>> import portablenn as pnn
        >>> pnn.mlp([2, 3, 1]).to("numpy").backend
        <backend numpy>
        """
        self._move(get_backend(backend))
        self.pinned = not _is_auto(backend)
        return self

    def snapshot(self, state: Any = None) -> State:
        """Return a copy of parameters, optimizer slots and statistics, on the network's backend.

        Parameters
        ----------
        state
            Copied instead of the network's own: (theta, slots, statistics) of any library.

        Examples
        --------
        >>> import portablenn as pnn
        >>> net = pnn.mlp([1, 1])
        >>> before = net.snapshot()
        >>> _ = net.fit([[1.0]], [2.0])
        >>> net.restore(before)
        """
        return self._state_on(self.state if state is None else State(*state))

    def restore(self, state: State) -> None:
        """Replace the state by a snapshot, without a copy."""
        self.state = state

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, which `portablenn.load` reads on any backend. Requires safetensors."""
        model_file.write(path, *self.contents())

    def contents(self) -> tuple[dict[str, Any], dict[str, Array], dict[str, Array]]:
        """Return what a model file holds: facts, arrays by name, and optimizer slots; see `model_file.write`."""
        facts = {
            "inputs": self.inputs,
            "layers": self.layers,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "dtype": str(self.dtype),
            "precision": self.precision,
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
        """Return a table of the layers, their output shapes and numbers of parameters.

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
        """Train the network; a second call continues from the current state.

        Parameters
        ----------
        X
            Shape (rows, inputs), finite real numbers of any dtype and library; or a sparse matrix of SciPy, which is made
            dense a few rows at a time. Without y: `data.Rows` and other blocks of rows with targets (see
            `data.sources.Blocks`), only some of which are in memory; an iterable of batches (X, y) or (X, y, weights), such
            as a PyTorch DataLoader; or a function of the epoch number that returns such an iterable.
        y
            Shape (rows,) or (rows, outputs), of the same library as X: class numbers from 0, or rows of 0 and 1, for
            classification losses; values for others.
        epochs
            Number of passes over the rows.
        batch_size
            Rows per step; None for all rows. Ignored for an iterable of batches.
        order
            "shuffle" (a new permutation each epoch), "sequential", or "random" (batches drawn with replacement). Or a
            function of the epoch number, from 0, that returns as many row numbers as there are rows. With blocks "shuffle"
            permutes the blocks, then the rows of several blocks together.
        validation_data
            (X, y), (X, y, weights), blocks, or an iterable of batches, evaluated after each epoch.
        validation_split
            Share of the rows, chosen by the seed, to validate on instead of training on them.
        sample_weight
            Shape (rows,), at least 0.
        class_weight
            {label: weight} or "balanced"; multiplied by the sample weights.
        callbacks
            See `portablenn.callbacks`.
        verbose
            Whether to print a line per epoch.
        steps_per_epoch
            With order "random" the number of batches in an epoch; None for as many as hold all rows. With an iterable of
            batches the maximum number to take.
        resume
            A folder of `callbacks.Checkpoint`: continue from its newest checkpoint up to ``epochs`` epochs in total, and end
            in the same bits as an uninterrupted run. Pass all other arguments as before. An empty or missing folder starts a
            new run.

        Returns
        -------
        History
            "loss" of each epoch: the mean over its rows (the sum, for a loss of reduction "sum"), each computed before the
            step that it belongs to, with the optimizer's l1 and l2. With validation rows "val_loss" and, for classification
            losses, "val_accuracy".

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid; the network is then unchanged.
        OutOfMemoryError
            If the device is out of memory; the network is then in its state after the last complete epoch.
        """
        from .memory_estimate import explain_out_of_memory  # here, because importing portablenn should be fast

        lbfgs = isinstance(self.optimizer, optimizers.LBFGS)
        options = FitOptions(epochs, batch_size, order, validation_split, steps_per_epoch, callbacks, lbfgs)
        if verbose:
            options.callbacks = [*options.callbacks, Progress()]
        data = make_dataset(self.spec, X, y, sample_weight, class_weight)
        held_out = None if validation_data is None else make_validation_dataset(self.spec, validation_data)
        options.check_data(data, held_out)
        backend = self._backend_for(data.sample)
        with explain_out_of_memory(self.model, backend, data, options.rows_per_step(data.rows)):
            data = data.to(backend, self.dtype)
            data, held_out, subset = options.split(data, held_out, backend, self.seed)
            known = [array for part in (data, held_out) if part is not None for array in part.samples]
            evaluate = None if held_out is None else partial(self._evaluate, held_out.to(backend, self.dtype))
            batching = options.batching(data, subset, backend, self.parameter_count)
            with self._unchanged_on_error():
                self._move(backend)
                self.labels, self.multilabel = data.labels or self.labels, data.multilabel
                self.history = History()
                self.training = TrainingLoop(self, data, batching, options.epochs, evaluate, known, options.callbacks)
                return self.training.run(resume)

    @contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        """Put everything back if an error comes before the first epoch has ended, unless it comes from a callback."""
        before = dict(self.__dict__)
        try:
            yield
        except BaseException:
            loop = self.training
            started, in_callback = loop and loop.started, loop and loop.failed_in_callback
            if not started or (self.epochs == before["epochs"] and not in_callback):
                self.__dict__.update(before)
            raise
        finally:
            self.training = None

    # Prediction

    def forward(self, X: Any) -> Array:
        """Return raw outputs (logits for classification losses), shape (rows, outputs), on the library and device of X."""
        return self._predict("forward", X)

    def predict(self, X: Any) -> Array:
        """Return labels, shape (rows,), for classification losses; else values, (rows, outputs), or (rows,) for one output.

        A network that was trained on several labels per row returns rows of 0 and 1, shape (rows, outputs).
        """
        return self._predict(self.prediction, X)

    def predict_proba(self, X: Any) -> Array:
        """Return class probabilities, shape (rows, classes); two columns for a network with one output.

        Raises
        ------
        TypeError
            If the loss does not define probabilities.
        """
        check_probabilities(self.loss)
        return self._predict("probabilities", X)

    def predictor(self, rows: int = 1) -> Predictor:
        """Return a function like `predict` for a fixed number of rows, such as those of one request to a server.

        It uses the network's current parameters at each call, and costs little more than the operations themselves if X is an
        array of NumPy and so is the network; in other cases it is `predict`.

        Parameters
        ----------
        rows
            Number of rows.

        Returns
        -------
        callable
            Takes X of shape (rows, inputs), and returns what `predict` does.

        Examples
        --------
        >>> import numpy as np
        >>> import portablenn as pnn
        >>> net = pnn.mlp([3, 8, 2], loss="softmax_cross_entropy", backend="numpy")
        >>> predict, x = net.predictor(), np.asarray([[0.1, 0.2, 0.3]])
        >>> bool(predict(x) == net.predict(x))
        True
        """
        return Predictor(self, validation.check_int(rows, "rows", 1))

    @property
    def prediction(self) -> str:
        """The method of the model that `predict` returns."""
        if self.multilabel:
            return "label_sets"
        if self.loss.targets != "classes":
            return "values"
        return "signed_labels" if self.outputs == 1 and self.labels == (-1, 1) else "labels"

    def layer_outputs(self, X: Any) -> dict[str, Array]:
        """Return the output of each layer by its name, {"dense_1": (rows, units), …}, as in prediction.

        Examples
        --------
        >>> import portablenn as pnn
        >>> {name: output.shape for name, output in pnn.mlp([2, 3, 1]).layer_outputs([[0.0, 1.0]]).items()}
        {'dense_1': (1, 3), 'dense_2': (1, 1)}
        """
        x = self.backend.asarray(validation.check_array(validation.check_inputs(X, self.inputs, self.dtype), "X"))
        outputs = self._run(self.model.layer_outputs, x)
        return {name: self._convert_like(y, X) for (name, _), y in zip(self.model.layers, outputs, strict=True)}

    def evaluate(self, X: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """Return {"loss": …}, and "accuracy" for classification losses; X and y are those of ``fit``."""
        return self._evaluate(make_dataset(self.spec, X, y, sample_weight).to(self.backend, self.dtype))

    def _backend_for(self, rows: Any) -> Backend:
        """Return where the network is trained on rows such as these."""
        foreign = is_array(rows) and not isinstance(rows, np.ndarray)
        return get_backend(rows) if foreign and not self.pinned else self.backend

    def _predict(self, method: str, X: Any) -> Array:
        if not is_array(X) and isinstance(X, Blocks):
            blocks = (X.read(block)[0] for block, rows in enumerate(X.sizes) if rows)
            return self._convert_like(self.backend.xp.concat([predict(self, method, x) for x in blocks], axis=0), X)
        return self._convert_like(predict(self, method, X), X)

    def _run(self, method: Any, *arrays: Array | None) -> Any:
        """Compile a method of a model for parameters, statistics and arrays like these, and return its result."""
        arguments = self.state.theta, self.state.statistics, *arrays
        return compile_for(self.backend, method, method.__self__, *arguments)(*arguments)

    def _evaluate(self, data: Dataset) -> dict[str, float]:
        sums = []
        for part in row_slices(self.backend, data, ROWS):
            sums.append((part.x.shape[0], part.weights, *self._run(self.model.evaluate_batch, *part)))
        return {name: float(value) for name, value in joined_metrics(self.loss, sums).items()}

    # Backends

    def _state_on(self, state: State, backend: Backend | None = None) -> State:
        """Return a copy of a state on a backend, in the network's dtype."""
        home = backend or self.backend
        theta, *slots, statistics = (home.own(v, self.dtype) for v in (state.theta, *state.slots, state.statistics))
        return State(theta, tuple(slots), statistics)

    def _move(self, backend: Backend) -> None:
        if backend != self.backend:
            self.state = self._state_on(self.state, backend)
            self.backend = backend

    def _layer_keys(self) -> Array | None:
        """Return the keys of layers that draw random numbers, shape (layers, 2); None if no layer does."""
        keys = self._layer_keys_on_host()
        return None if keys is None else self.backend.asarray(keys, "int32")

    def _layer_keys_on_host(self) -> np.ndarray | None:
        if not any("random" in accepted(layer) for layer in self.layers):
            return None
        return np.stack([random.new_key(self.seed, random.MASKS, i) for i in range(len(self.layers))])

    def _penalty_mask(self) -> Array | None:
        """Return 1 where the parameter vector holds kernels, which penalties apply to, else 0; None without penalties."""
        if not self.optimizer.penalizes:
            return None
        flat = self.model.parameters
        ones = {name: np.full(shape, float(name.endswith(".kernel"))) for name, shape in flat.pieces}
        return self.backend.asarray(flat.join(NUMPY.xp, ones, np.zeros(0)), self.dtype)

    def _convert_like(self, array: Array, like: Any) -> Array:
        """Convert a result to the library and device of ``like``; to NumPy if that is not an array."""
        if not is_array(like) or isinstance(like, np.ndarray):
            return to_numpy(array)
        if array_namespace(like) is array_namespace(array) and device_of(like) == device_of(array):
            return array
        return get_backend(like).asarray(array)


def load(path: str | Path, backend: Any = "auto") -> Network:
    """Read a network that `Network.save` wrote. Requires safetensors.

    Parameters
    ----------
    path
        The file.
    backend
        See `get_backend`.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    FileFormatError
        If it is not a complete model file of a known version.

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
        raise FileFormatError(f"{path} holds a TableModel: load it with portablenn.TableModel.load")
    return from_contents(path, facts, arrays, slots, backend)


def from_contents(
    path: str | Path, facts: dict[str, Any], arrays: dict[str, np.ndarray], slots: dict[str, np.ndarray], backend: Any
) -> Network:
    """Return the network of `Network.contents`, as `model_file.read` returns it."""
    made = {name: facts[name] for name in ("layers", "inputs", "loss", "optimizer", "dtype", "precision", "seed")}
    home = get_backend(backend)
    try:
        network = Network(**made, backend="numpy")
        network._set_arrays(arrays, [slots[name] for name in network.optimizer.slots])
    except (ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(f"{path} is not a valid model file: {error}") from None
    network.multilabel = facts["multilabel"]
    network.steps, network.epochs, network.labels = facts["steps"], facts["epochs"], tuple(facts["labels"])
    network._move(home)
    network.pinned = not _is_auto(backend)
    return network


def joined_metrics(loss: losses.Loss, sums: Sequence[tuple[int, Array | None, Array, Array]]) -> dict[str, np.ndarray]:
    """Return the metrics of all rows, of shape () or (members,).

    ``sums`` has for some rows each their number, their weights, and what `Model.evaluate_batch` returns.
    """
    sizes = np.asarray([float(n) if w is None else float(array_namespace(w).sum(w)) for n, w, *_ in sums])
    values = np.asarray([to_numpy(value) for _, _, value, _ in sums], dtype=np.float64)
    results = {
        "loss": (values.T * sizes).T.sum(axis=0) / sizes.sum() if loss.reduction == "mean" else values.sum(axis=0)
    }
    if loss.targets == "classes":
        right = np.asarray([to_numpy(count) for *_, count in sums], dtype=np.float64)
        results["accuracy"] = right.sum(axis=0) / sizes.sum()
    return results


def check_probabilities(loss: losses.Loss) -> None:
    """Raise `TypeError` unless the loss defines probabilities of classes."""
    if loss.targets != "classes" or loss.link is None:
        raise TypeError(
            f"predict_proba requires a loss with probabilities, got {type(loss).__name__}: use "
            '"sigmoid_cross_entropy" or "softmax_cross_entropy", or call predict'
        )


def _is_auto(backend: Any) -> bool:
    return isinstance(backend, str) and backend == "auto"


def _check_layers(layers: Sequence[Any]) -> None:
    if not isinstance(layers, (list, tuple)) or not layers:
        raise ValueError(f"layers must be a list of at least one layer, got {layers!r}")
    for layer in layers:
        if not (hasattr(layer, "init") and hasattr(layer, "apply")) or isinstance(layer, type):
            raise TypeError(f"a layer must have init(key, inputs) and apply(xp, params, x), got {layer!r}")
