"""Ensemble: many networks that are trained in as few programs as their shapes allow, and predict together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import random
from ..callbacks.base import Callback
from ..data.chunks import Orders, slices
from ..data.dataset import Dataset, make_dataset, make_validation_dataset
from ..data.sources import Blocks, slice_rows
from ..data.validation import check_inputs, check_int
from ..files import model_file
from ..files.safetensors_file import FileFormatError
from ..nn import losses, optimizers
from ..nn.optimizers import LBFGS
from ..program.ir import Array
from ..runtime.arrays import is_array, to_numpy
from ..runtime.backend import Backend, BackendError
from .ensemble_fit import EnsembleFit, Patience
from .fit_options import FitOptions
from .history import History
from .members import Groups, Members, TrainedMembers, blocks
from .network import Network, check_probabilities, from_contents
from .orders import orders_for, orders_of_members
from .prediction import with_padding

if TYPE_CHECKING:
    from pathlib import Path


class Ensemble:
    """Many networks that are trained at once and predict together.

    Each member is the network that it would be alone: the same initial weights, batches and dropout masks to the bit, and after
    training the same parameters up to rounding.

    Parameters
    ----------
    network
        The network whose settings the members have, newly made; it is not changed. Or a list of networks, which are the
        members.
    members
        A number: members with the seeds ``network.seed``, ``network.seed + 1``, …. Or a list with a dict for each member of
        what differs from ``network``, the seed included, by names such as "seed", "optimizer.learning_rate",
        "optimizer.learning_rate.start" (of a schedule),
        "loss.delta", "dense_1.units", "dropout_1.rate", or "optimizer" with an object. Members are trained in one program if
        they differ in seed and in numbers of optimizer and loss (but for decay rates such as beta_2); others in a program for
        each structure.

    Attributes
    ----------
    networks : tuple of Network
        The members.
    history : History
        Of the last ``fit``: by name, such as "loss", for each epoch an array, (members,); NaN after a member was stopped.

    Raises
    ------
    ValueError, TypeError
        If a name or a value is invalid, or the networks differ in inputs, outputs, dtype or kind of targets, or are fixed to
        different backends.

    Notes
    -----
    Adam takes steps of the size of its rate also where a gradient is rounding noise, such as that of a bias before batch
    normalization: such parameters can differ from those of the network alone.

    Examples
    --------
    >>> import numpy as np
    >>> import portablenn as pnn
    >>> X = np.asarray([[0.0], [1.0], [2.0], [3.0]])
    >>> net = pnn.mlp([1, 8, 1], optimizer=pnn.Adam(0.01), backend="numpy")
    >>> rates = [{"seed": seed, "optimizer.learning_rate": rate} for seed in range(4) for rate in (0.03, 0.1)]
    >>> ens = pnn.Ensemble(net, members=rates)
    >>> history = ens.fit(X, 2.0 * X, epochs=200)
    >>> history["loss"][-1].shape, ens.predict(X).round(0).tolist()
    ((8,), [0.0, 2.0, 4.0, 6.0])
    """

    def __init__(
        self, network: Network | Sequence[Network], members: int | Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        if isinstance(network, Network):
            if members is None:
                raise TypeError("members is missing: pass a number, or a list with a dict for each member")
            if isinstance(members, (str, Mapping)):
                raise TypeError(
                    f"expected a number, or a list with a dict for each member, as members, got {members!r}"
                )
            if not isinstance(members, Iterable) or (isinstance(members, np.ndarray) and members.ndim == 0):
                count = check_int(members, "members", 1)
                members = [{"seed": int(network.seed) + k} for k in range(count)]
            networks = [_like(network, settings) for settings in members]
        else:
            if isinstance(network, (str, type)) or not isinstance(network, Iterable):
                raise TypeError(f"expected a Network, or a list of networks, got {network!r}")
            networks = list(network)
            if members is not None:
                raise TypeError("members is for one network: a list of networks has its members")
        _check_alike(networks)
        self.networks = tuple(networks)
        self.history = History()
        self._groups = Groups(networks)

    def __len__(self) -> int:
        return len(self.networks)

    def __getitem__(self, k: int) -> Network:
        """Return a member, as `member` does."""
        return self.networks[k]

    def member(self, k: int) -> Network:
        """Return a member, which can be used and trained alone."""
        return self.networks[k]

    def save(self, path: str | Path) -> None:
        """Write all members to a safetensors file, which `load` reads on any backend. Requires safetensors."""
        model_file.write_members(path, [network.contents() for network in self.networks])

    @staticmethod
    def load(path: str | Path, backend: Any = "auto") -> Ensemble:
        """Read an ensemble that `save` wrote, on a backend as `get_backend` takes it. Requires safetensors.

        Raises
        ------
        FileNotFoundError, FileFormatError
            If the file does not exist, or is not a complete file of an ensemble of a known version.

        Examples
        --------
        >>> import tempfile, pathlib
        >>> import portablenn as pnn
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "ensemble.safetensors"
        >>> pnn.Ensemble(pnn.mlp([2, 3, 1]), members=5).save(path)
        >>> len(pnn.Ensemble.load(path, backend="numpy"))
        5
        """
        networks = [from_contents(path, *contents, backend) for contents in model_file.read_members(path)]
        try:
            return Ensemble(networks)
        except ValueError as error:
            raise FileFormatError(f"{path} is not an ensemble: {error}") from None

    def __repr__(self) -> str:
        kinds = len(list(self._groups))
        programs = "1 structure" if kinds == 1 else f"{kinds} structures"
        return f"<Ensemble of {len(self)}, {programs}, such as {self.networks[0]!r}>"

    # Training

    def fit(
        self,
        X: Any,
        y: Any,
        epochs: int = 1,
        batch_size: int | None = 32,
        order: str | Callable[[int], Any] = "shuffle",
        validation_data: Any = None,
        validation_split: float = 0.0,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Sequence[Any] = (),
        patience: int | None = None,
        share_order: bool = False,
        bootstrap: bool = False,
        folds: Sequence[Any] | None = None,
        steps_per_epoch: int | None = None,
    ) -> History:
        """Train all members on the same rows; a second call continues from their current states.

        Parameters
        ----------
        X, y, epochs, batch_size, order, validation_data, sample_weight, class_weight, steps_per_epoch
            As for `Network.fit`; X and y are arrays. The batches of a member are those of its own seed.
        validation_split
            Share of the rows to validate on, chosen by the seed of the first member: the same rows for all.
        callbacks
            Objects whose ``on_epoch_end(ensemble, epoch, logs)`` gets the metrics of an epoch as arrays, (members,); training
            ends for all if it returns something true, such as the reason. The networks change when training has ended, and a
            callback must not change them.
        patience
            Number of epochs without a lower "val_loss" after which a member stops, and takes no more time once half of those
            in its program have. Each member gets its best state back. It needs validation rows.
        share_order
            Whether all members take the batches of the first one, which are then read only once for all of them: faster,
            where there are many columns.
        bootstrap
            Whether each member is trained on as many rows as there are, drawn with replacement by its seed (Breiman 1996).
        folds
            For each member the numbers of the rows that it is trained on, such as those of a fold of a cross-validation.
            ``class_weight`` "balanced" counts all rows.

        Returns
        -------
        History
            For each epoch arrays, (members,).

        Raises
        ------
        TypeError, ValueError
            If an argument is invalid; the members are then unchanged, as after any error.
        """
        first = self._first()
        if len({id(network) for network in self.networks}) < len(self):
            raise ValueError(
                "some networks are in the ensemble several times, as `select` chooses: train the one selected from"
            )
        if y is None:
            raise TypeError("y is missing: an ensemble is trained on arrays X and y")
        _check_flags(bootstrap=bootstrap, share_order=share_order)
        options = FitOptions(epochs, batch_size, order, validation_split, steps_per_epoch, (), lbfgs=False)
        if patience is not None:
            patience = check_int(patience, "patience", 1)
            if validation_data is None and not validation_split:
                raise ValueError(
                    "patience watches the loss of validation rows: pass validation_data or validation_split"
                )
        if not isinstance(callbacks, (list, tuple)):
            raise TypeError(f"callbacks must be a list, got {callbacks!r}")
        if folds is not None and validation_split:
            raise ValueError("folds say which rows are trained on: pass validation_data instead of validation_split")
        if any(isinstance(n.optimizer, LBFGS) for n in self.networks):
            raise ValueError("L-BFGS searches along a line of its own for each network: train such networks one by one")
        hooks = [_hook(callback) for callback in callbacks]
        data = make_dataset(first.spec, X, y, sample_weight, class_weight)
        held_out = None if validation_data is None else make_validation_dataset(first.spec, validation_data)
        if data.validate is not None or not is_array(data.x) or (held_out is not None and not is_array(held_out.x)):
            raise TypeError(
                "an ensemble is trained on arrays: make other data arrays, or train its networks one by one"
            )
        options.check_data(data, held_out)
        backend = self._pinned_backend() or first._backend_for(data.sample)
        data = data.to(backend, first.dtype)
        data, held_out, subset = options.split(data, held_out, backend, first.seed)
        own = self._rows(data.rows, subset, bootstrap, folds)
        if own is not None and share_order:
            raise ValueError(
                "share_order is for members that are trained on the same rows, without bootstrap and folds"
            )
        watched = None if held_out is None else held_out.to(backend, first.dtype)
        orders = self._shared_order if share_order else _orders_of
        parts: list[TrainedMembers] = []
        for group in self._groups.of_equal_steps():
            one = self.networks[group.numbers[0]]
            for same in [group] if own is None else group.divided(lambda k: len(own[k])):
                count = data.rows if subset is None else len(subset)
                batch = options.rows_per_step(count if own is None else len(own[same.numbers[0]]))
                for block in blocks(same, one, backend, batch, data.rows):
                    rows = subset if own is None else np.stack([own[k] for k in block.numbers])
                    batching = options.batching(data, rows, backend, one.parameter_count)
                    if own is not None and batching.batch_size == batching.count and order == "shuffle":
                        batching = replace(
                            batching, order="sequential"
                        )  # as in a network that is trained on these rows
                    parts.append(TrainedMembers(block, self.networks, backend, data, batching, orders, watched))
        rule = None if patience is None else Patience(len(self), patience)
        training = EnsembleFit(len(self), parts, options.epochs, rule, [partial(hook, self) for hook in hooks])
        before = [_progress(network) for network in self.networks]
        training.run()
        changed = [k for k, network in enumerate(self.networks) if _progress(network) != before[k]]
        if changed:
            raise ValueError(
                f"a callback changed member {changed[0]}, and what was trained is discarded: callbacks of an ensemble only read"
            )
        training.warn(stacklevel=2)
        self._adopt(training, backend, data)
        return self.history

    def _shared_order(self, members: TrainedMembers) -> Orders:
        """Return the order of the first member, for all."""
        return orders_for(members.networks[0].model, members.backend, members.batching, self.networks[0].seed)

    def _rows(
        self, count: int, subset: np.ndarray | None, bootstrap: bool, folds: Sequence[Any] | None
    ) -> list[np.ndarray] | None:
        """Return the numbers of the rows that each member is trained on; None if they are the same."""
        if folds is None and not bootstrap:
            return None
        everything = np.arange(count) if subset is None else subset
        rows = [everything] * len(self)
        if folds is not None:
            rows = self._checked_folds(folds, count)
        if bootstrap:
            keys = [random.new_key(network.seed, random.BOOTSTRAP) for network in self.networks]
            rows = [
                one[np.sort(random.draws(key, 0, 1, len(one), len(one))[0])]
                for key, one in zip(keys, rows, strict=True)
            ]
        return rows

    def _checked_folds(self, folds: Any, count: int) -> list[np.ndarray]:
        """Validate the row numbers of each member; return them as int64."""
        folds = list(folds) if isinstance(folds, Iterable) else [folds]
        if any(isinstance(fold, (tuple, list)) and len(fold) == 2 and np.ndim(fold[0]) == 1 for fold in folds):
            raise ValueError(
                "expected the rows to train on in folds, got pairs: pass [train for train, test in splits]"
            )
        if len(folds) != len(self):
            raise ValueError(f"expected row numbers for each of {len(self)} members in folds, got {len(folds)}")
        rows = []
        for k, fold in enumerate(folds):
            try:
                numbers = np.asarray(fold)
            except ValueError:
                raise ValueError(f"expected row numbers in folds[{k}], (rows,), got nested lists") from None
            if numbers.dtype == bool:
                raise ValueError(f"expected row numbers in folds[{k}], got booleans: pass np.flatnonzero(folds[{k}])")
            if numbers.ndim != 1 or not numbers.size or numbers.dtype.kind not in "iu":
                raise ValueError(
                    f"expected row numbers in folds[{k}], (rows,), got {numbers.dtype} of shape {numbers.shape}"
                )
            if not 0 <= numbers.min() <= numbers.max() < count:
                raise ValueError(
                    f"expected row numbers from 0 to {count - 1} in folds[{k}], got {numbers.min()} to {numbers.max()}"
                )
            rows.append(numbers.astype(np.int64))
        return rows

    def _adopt(self, training: EnsembleFit, backend: Backend, data: Dataset) -> None:
        """Take over what training found, in all members or in none."""
        history = training.history
        columns = {name: np.asarray(values) for name, values in history.items()}
        new: dict[int, dict[str, Any]] = {}
        for k, state, steps, epochs in training.results:
            network = self.networks[k]
            own = History({name: values[:epochs, k].tolist() for name, values in columns.items()})
            own.how, own.ended = history.how, history.ended
            if isinstance(training.rule, Patience) and training.stopped[k]:
                own.ended = training.rule.reason
            new[k] = {
                "state": state, "backend": backend, "steps": steps, "epochs": network.epochs + epochs, "history": own,
                "labels": data.labels or network.labels, "multilabel": data.multilabel,
            }  # fmt: skip
        before = [dict(network.__dict__) for network in self.networks]
        try:
            for k, attributes in new.items():
                self.networks[k].__dict__.update(attributes)
        except BaseException:  # Ctrl-C
            for network, attributes in zip(self.networks, before, strict=True):
                network.__dict__.update(attributes)
            raise
        self.history = history

    # Prediction

    def predict(self, X: Any) -> Array:
        """Return predictions: of values the mean over members; of classes the one of the highest mean probability.

        For losses without probabilities, such as "hinge", the class is that of the mean output. Shapes are those of
        `Network.predict`.
        """
        return self.predict_as(self._first().prediction, X)

    def predict_as(self, kind: str, X: Any) -> Array:
        """Return predictions of a kind: "values", "labels", "signed_labels" or "label_sets"; see `predict`."""
        first = self.networks[0]
        if kind == "values":
            return first._convert_like(self._mean("values", X), X)
        if kind != "label_sets" and first.outputs > 1:
            return first._convert_like(self._likeliest(X), X)
        raw = self._of_each("forward", X)
        xp = first.backend.xp
        if first.loss.link is not None:
            raw = xp.tanh(raw / 2)  # twice the probability, less 1: without that 1, small ones are not rounded away
        positive = xp.mean(raw, axis=0) > 0.0
        if kind == "label_sets":
            return first._convert_like(xp.astype(positive, xp.int32), X)
        classes = xp.astype(xp.reshape(positive, (-1,)), xp.int32)
        return first._convert_like(classes * 2 - 1 if kind == "signed_labels" else classes, X)

    def _likeliest(self, X: Any) -> Array:
        """Return the class of the highest mean probability, or output for losses without, (rows,)."""
        first = self.networks[0]
        raw = self._of_each("forward", X)
        xp = first.backend.xp
        outputs = xp.mean(raw, axis=0)
        if first.loss.link is None:
            return xp.argmax(outputs, axis=1)
        means = xp.mean(first.loss.link(raw), axis=0)
        ties = means == xp.max(means, axis=1, keepdims=True)  # of probabilities that are rounded to 1
        return xp.argmax(xp.where(ties, outputs, -math.inf), axis=1)

    def predict_proba(self, X: Any) -> Array:
        """Return the mean of the members' class probabilities, (rows, classes)."""
        first = self.networks[0]
        check_probabilities(first.loss)
        return first._convert_like(self._mean("probabilities", X), X)

    def predict_members(self, X: Any) -> Array:
        """Return what `Network.predict` of each member returns, with an axis of members in front."""
        first = self._first()
        return first._convert_like(self._of_each(first.prediction, X), X)

    def predict_std(self, X: Any) -> Array:
        """Return the standard deviation over members of predicted values, or of class probabilities.

        Shapes are those of `predict` for values, and (rows, classes) for classes; for losses without probabilities
        it is that of raw outputs, (rows, outputs).
        """
        first = self.networks[0]
        raw = "forward" if first.loss.link is None else "probabilities"
        each = self._of_each("values" if first.loss.targets != "classes" else raw, X)
        return first._convert_like(first.backend.xp.std(each, axis=0), X)

    def predict_quantiles(self, X: Any, quantiles: Sequence[float]) -> Array:
        """Return quantiles over members of predicted values, with an axis of quantiles in front; between two members linear.

        Examples
        --------
        >>> import portablenn as pnn
        >>> ens = pnn.Ensemble(pnn.mlp([2, 8, 1], backend="numpy"), members=10)
        >>> ens.predict_quantiles([[0.5, 1.0]], [0.05, 0.95]).shape
        (2, 1)
        """
        first = self.networks[0]
        if first.loss.targets == "classes":
            raise TypeError(
                "predict_quantiles is for values, not for classes: predict_proba is the mean of probabilities"
            )
        try:
            wanted = np.asarray(quantiles, dtype=np.float64)
        except (TypeError, ValueError):
            wanted = np.asarray(math.nan)
        if wanted.ndim != 1 or not np.all((wanted >= 0) & (wanted <= 1)):
            raise ValueError(f"expected a list of quantiles from 0 to 1, got {quantiles!r}")
        found = np.quantile(to_numpy(self._of_each("values", X)), wanted, axis=0)
        return first._convert_like(first.backend.asarray(found, first.dtype), X)

    def scores(self, X: Any, y: Any, sample_weight: Any = None) -> dict[str, np.ndarray]:
        """Return {"loss": …}, and "accuracy" for classification losses, of each member on some rows: (members,) of NumPy."""
        data = make_dataset(self.networks[0].spec, X, y, sample_weight)
        data = data.to(self._same_backend(), self.networks[0].dtype)
        results: dict[str, np.ndarray] = {}
        for members in self._parts():
            for name, values in members.evaluate(data).items():
                results.setdefault(name, np.zeros(len(self)))[members.numbers] = values
        return results

    def select(self, k: int, X: Any, y: Any) -> Ensemble:
        """Return an ensemble of ``k`` members that predict these rows well together, some of them perhaps several times.

        From none, the member is added after which the mean prediction has the lowest squared error, of values or of class
        probabilities, ``k`` times (Caruana et al. 2004, "Ensemble selection from libraries of models"). Use rows that the
        members were not trained on.

        Examples
        --------
        >>> import numpy as np
        >>> import portablenn as pnn
        >>> X = np.asarray([[0.0], [1.0], [2.0]])
        >>> ens = pnn.Ensemble(pnn.mlp([1, 4, 1], backend="numpy"), members=20)
        >>> len(ens.select(5, X, X))
        5
        """
        check_int(k, "k", 1)
        first = self._first()
        classes = first.loss.targets == "classes"
        y = to_numpy(make_dataset(first.spec, X, y).y)
        if classes and first.loss.link is None:
            raise TypeError(
                f"select compares probabilities, which the loss {type(first.loss).__name__} does not define"
            )
        multilabel = classes and y.ndim == 2 and not first.loss.exclusive
        method = "probabilities" if classes and not multilabel else "values"
        each = to_numpy(self._of_each(method, X)).astype(np.float64)
        if method == "probabilities" and y.ndim == 1:
            y = y[:, None] == np.arange(each.shape[2])
        target = y.reshape(each.shape[1:]).astype(np.float64)
        total, chosen = np.zeros(target.shape), list[int]()
        for count in range(1, k + 1):
            errors = np.square((total + each) / count - target).reshape(len(each), -1).mean(axis=1)
            if np.isnan(errors).all():
                raise ValueError("no member has finite predictions for these rows: lower the learning rates")
            best = int(np.nanargmin(errors))
            total += each[best]
            chosen.append(best)
        return Ensemble([self.networks[i] for i in chosen])

    def _first(self) -> Network:
        """Return the first member, after checking that all still predict the same kind of thing."""
        first = self.networks[0]
        for k, network in enumerate(self.networks):
            if network.prediction != first.prediction:
                raise ValueError(
                    f"member 0 predicts {first.prediction}, and member {k}, which was trained alone, {network.prediction}"
                )
        return first

    def _pinned_backend(self) -> Backend | None:
        """Return the backend that members are fixed to, if any is."""
        pinned = [(k, network.backend) for k, network in enumerate(self.networks) if network.pinned]
        for k, backend in pinned:
            if backend != pinned[0][1]:
                raise BackendError(
                    f"member {pinned[0][0]} is fixed to {pinned[0][1]}, and member {k} to {backend}: move one with to()"
                )
        return pinned[0][1] if pinned else None

    def _same_backend(self) -> Backend:
        home = self._pinned_backend() or self.networks[0].backend
        for network in self.networks:
            network._move(home)
        return home

    def _parts(self) -> Iterator[Members]:
        """Return the members of each structure, with their states side by side."""
        backend = self._same_backend()
        for group in self._groups:
            yield Members(group, self.networks, backend)

    def _of_each(self, method: str, X: Any) -> Array:
        """Return what a method of the model returns for each member, on the backend."""
        first = self.networks[0]
        if not is_array(X) and isinstance(X, Blocks):
            raise TypeError("an ensemble predicts arrays: pass blocks to its members, or read them one by one")
        x = check_inputs(X, first.inputs, first.dtype)
        backend = self._same_backend()
        x = backend.asarray(x) if is_array(x) else x  # a sparse matrix is made dense part by part
        xp = backend.xp
        found: list[Any] = [None] * len(self)
        for members in self._parts():
            parts = []
            for rows in slices(x.shape[0], members.rows_at_once):
                part = backend.asarray(slice_rows(x, rows))
                parts.append(members.run(method, with_padding(members.stack.model, part))[:, : part.shape[0], ...])
            each = parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)
            if len(members.numbers) == len(self):
                return each
            for position, k in enumerate(members.numbers):
                found[k] = each[position, ...]
        return xp.stack(found)

    def _mean(self, method: str, X: Any) -> Array:
        return self.networks[0].backend.xp.mean(self._of_each(method, X), axis=0)


def _orders_of(members: TrainedMembers) -> Orders:
    """Return the orders of members, each by its seed."""
    first = members.networks[0]
    return orders_of_members(first.model, members.backend, members.batching, [n.seed for n in members.networks])


def _progress(network: Network) -> tuple[Any, ...]:
    """Return what tells whether a network was changed."""
    return id(network.model), id(network.state), network.steps, network.epochs


def _check_flags(**flags: Any) -> None:
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{name} must be True or False, got {value!r}")


def _hook(callback: Any) -> Callable[..., Any]:
    if isinstance(callback, Callback):
        raise TypeError(
            f"{type(callback).__name__} is a callback of a single network; for early stopping pass patience"
        )
    hook = getattr(callback, "on_epoch_end", None)
    if isinstance(callback, type) or not callable(hook):
        raise TypeError(f"{callback!r} is not a callback of an ensemble: it needs on_epoch_end(ensemble, epoch, logs)")
    return hook


def _check_alike(networks: Sequence[Network]) -> None:
    """Raise an error unless the same rows and targets suit all networks."""
    if not networks:
        raise ValueError("an ensemble has at least one member")
    for network in networks:
        if not isinstance(network, Network):
            raise TypeError(f"expected networks, got {type(network).__name__}")

    def facts(network: Network) -> dict[str, Any]:
        loss = network.loss
        return {
            "inputs": network.inputs, "outputs": network.outputs, "dtype": network.dtype, "kind of targets": loss.targets,
            "exclusive classes": loss.exclusive, "kind of predictions": network.prediction,
            "probabilities": loss.link is not None,
        }  # fmt: skip

    fixed = {str(network.backend) for network in networks if network.pinned}
    if len(fixed) > 1:
        raise ValueError(
            f"members of an ensemble are on one backend, got {', '.join(sorted(fixed))}: move them with to()"
        )
    expected = facts(networks[0])
    for k, network in enumerate(networks):
        for name, value in facts(network).items():
            if value != expected[name]:
                raise ValueError(
                    f"members of an ensemble have the same {name}: member 0 has {expected[name]}, member {k} {value}"
                )


def _like(network: Network, settings: Mapping[str, Any]) -> Network:
    """Return a new network like ``network``, with some of its settings replaced."""
    if not isinstance(settings, Mapping):
        raise TypeError(f"expected a dict of settings for each member, got {settings!r}")
    model = network.model
    if network.steps or network.epochs:
        raise ValueError(
            "the network is trained, and members would begin anew: pass a new network, or a list of networks"
        )
    zeros = [name for name, layer in model.layers[:-1] if getattr(layer, "kernel_init", "") == "zeros"]
    if zeros:
        raise ValueError(
            f"the kernel of {zeros[0]} would begin at zero, as the initializers of a network that was loaded are not known: "
            "build the network anew, or pass a list of networks"
        )
    parts: dict[str, Any] = {
        "seed": network.seed,
        "optimizer": model.optimizer,
        "loss": model.loss,
        **dict(model.layers),
    }
    known = {"optimizer": optimizers.get, "loss": losses.get}
    for path in sorted(settings, key=str):  # "optimizer" before "optimizer.learning_rate"
        name, *inside = str(path).split(".")
        if name not in parts:
            raise ValueError(f"unknown setting {path!r}: expected it to begin with one of {', '.join(parts)}")
        value = settings[path] if inside or name not in known else known[name](settings[path])
        parts[name] = _replaced(parts[name], inside, value, str(path))
    layers = [parts[name] for name, _ in model.layers]
    backend = network.backend if network.pinned else "auto"
    new = Network(
        layers,
        network.inputs,
        parts["loss"],
        parts["optimizer"],
        backend,
        network.dtype,
        parts["seed"],
        network.precision,
    )
    new.model = replace(new.model, report_loss=model.report_loss)
    return new


def _replaced(part: Any, inside: Sequence[str], value: Any, path: str) -> Any:
    """Return ``part`` with the field of a field … replaced; fields are validated as always."""
    if not inside:
        return value
    names = [field.name for field in fields(part) if field.init] if is_dataclass(part) else []
    if inside[0] not in names:
        expected = f"expected one of {', '.join(names)}" if names else f"{part!r} has no settings"
        raise ValueError(f"unknown setting {path!r}: {expected}")
    new = _replaced(getattr(part, inside[0]), inside[1:], value, path)
    try:
        return replace(part, **{inside[0]: new})
    except TypeError as error:
        raise TypeError(f"{path!r} cannot be {value!r}: {error}") from None
