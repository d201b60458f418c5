"""Many multi-layer perceptrons fitted at once: those whose networks differ only in numbers, in one program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..data.chunks import Orders, slices
from ..data.dataset import Dataset, is_multilabel, make_dataset
from ..runtime.arrays import array_namespace, is_array, to_numpy
from ..runtime.backend import Backend
from ..training.ensemble_fit import EnsembleFit, StoppingRule
from ..training.fit_options import FitOptions
from ..training.history import History
from ..training.members import Group, Groups, TrainedMembers, blocks
from ..training.orders import MembersOrders
from . import inputs, private
from .inputs import Samples, like
from .mlp import MLPClassifier
from .solvers import STOCHASTIC, Start, start_stochastic, warn_if_not_converged
from .stopping import converge, end_epoch, is_adaptive

FIT = MLPClassifier.fit


class Job(NamedTuple):
    """An estimator that is fitted for the first time, and its data."""

    estimator: Any
    X: Any
    y: Any
    sample_weight: Any = None
    rows: np.ndarray | None = None  # numbers of the rows to train on; None for all


@dataclass(frozen=True)
class Halving:
    """Successive halving (Jamieson & Talwalkar 2016): after some epochs the best candidates are trained on, others are not.

    A candidate has several jobs, one for each split. Candidates are compared by the mean score of their splits, if any split is
    still in training, with those that are trained together and have the same ``early_stopping``.
    """

    factor: int  # one of so many candidates remains, each time
    min_epochs: int  # after which the first are dropped; each later time after ``factor`` times as many
    candidates: Sequence[int]  # of each job
    score: Callable[[int], float]  # of a job, as its estimator is at the time
    dropped: set[int] = field(default_factory=set)  # candidates, so far
    alone: list[int] = field(default_factory=list)  # jobs that are fitted one by one, without halving

    def is_due(self, epochs: int) -> bool:
        """Return whether candidates are dropped after this number of epochs."""
        due = self.min_epochs
        while due < epochs:
            due *= self.factor
        return due == epochs

    def best(self, jobs: Sequence[int]) -> set[int]:
        """Return the best of the candidates that some jobs have."""
        scores: dict[int, list[float]] = defaultdict(list)
        for job in jobs:
            scores[self.candidates[job]].append(self.score(job))
        means = {candidate: float(np.mean(values)) for candidate, values in scores.items()}
        ranked = sorted(means, key=lambda candidate: (np.isnan(means[candidate]), -means[candidate]))
        return set(ranked[: -(-len(ranked) // self.factor)])


def fit_together(jobs: Sequence[Job], halving: Halving | None = None) -> list[Exception | None]:
    """Fit estimators as their own ``fit`` does, up to rounding; return for each the error that it raised, or None.

    After an error an estimator may be half fitted.
    Those that use "sgd" or "adam", the former without ``learning_rate="adaptive"``, on dense rows and without callbacks are
    trained in as few programs as their networks allow; others one after the other.
    """
    errors: list[Exception | None] = [None] * len(jobs)

    @contextmanager
    def recorded(k: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            errors[k] = error

    validated, pool, waiting = _ValidatedRows(), _Pool(), list[_JoinedFit]()
    for k, job in enumerate(jobs):
        with recorded(k):
            e = job.estimator
            if type(e).fit is not FIT:  # of a subclass
                rows = slice(None) if job.rows is None else job.rows
                e.fit(*(None if a is None else private.take_rows(a, rows) for a in (job.X, job.y, job.sample_weight)))
                continue
            samples = e._start(validated.of(job), job.y, job.sample_weight, reset=True, incremental=False)
            if e.random_state is None:  # orders are drawn in threads, in any order
                e._random_state = np.random.RandomState(e._random_state.randint(np.iinfo(np.int32).max))
            if _is_joinable(e, samples.x):
                target = samples.target if job.rows is None else samples.target[job.rows]
                start = start_stochastic(e, target, incremental=False)
                waiting.append(_JoinedFit(k, e, samples, job.rows, start, pool.add(e, samples)))
            else:
                if halving is not None:
                    halving.alone.append(k)
                e._train(samples if job.rows is None else samples.take(job.rows), incremental=False)
                e._finish(samples.x)
    alike: dict[Any, list[_JoinedFit]] = defaultdict(list)
    for fit in waiting:
        alike[fit.backend, bool(fit.estimator.early_stopping)].append(fit)
    for (backend, keeps_best), fits in alike.items():
        if ready := _prepared(fits, backend, errors):
            try:
                _train_joined(ready, backend, _JoinedStopping(ready, keeps_best, halving))
            except Exception as error:
                for fit in ready:
                    errors[fit.job] = error
    for fit in waiting:
        if errors[fit.job] is not None:
            continue
        with recorded(fit.job):
            warn_if_not_converged(fit.estimator)
            fit.estimator._finish(fit.samples.x)
    return errors


def _is_joinable(e: Any, x: Any) -> bool:
    return e.solver in STOCHASTIC and not is_adaptive(e) and not e.callbacks and is_array(x)


class _ValidatedRows:
    """Rows that are validated once, whatever the number of estimators that are fitted on them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Any]] = {}

    def of(self, job: Job) -> Any:
        """Return the validated rows of a job, and set the attributes of its estimator that describe them."""
        if id(job.X) not in self._known:
            self._known[id(job.X)] = inputs.rows(job.estimator, job.X, reset=True), job
        x, first = self._known[id(job.X)]
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(first.estimator, name):
                setattr(job.estimator, name, getattr(first.estimator, name))
        return x


@dataclass
class _JoinedSamples:
    """Distinct samples that suit the same networks, one below the other."""

    spec: Any
    samples: list[Samples] = field(default_factory=list)
    _data: Dataset | None = None

    def dataset(self, backend: Backend) -> Dataset:
        """Return all samples on a backend, which is the same in each call."""
        if self._data is None:
            x, first = self._joined_rows(), self.samples[0]
            target = np.concatenate([samples.target for samples in self.samples])
            weights = None if first.weights is None else np.concatenate([samples.weights for samples in self.samples])
            self._data = make_dataset(self.spec, x, like(x, target), like(x, weights)).to(backend, self.spec.dtype)
        return self._data

    def _joined_rows(self) -> Any:
        rows = [samples.x for samples in self.samples]
        return rows[0] if len(rows) == 1 else array_namespace(*rows).concat(rows, axis=0)


class _Pool:
    """The samples of all fits: equal ones are kept once."""

    def __init__(self) -> None:
        self._parts: dict[Any, _JoinedSamples] = {}

    def add(self, e: Any, samples: Samples) -> tuple[_JoinedSamples, int]:
        """Return the joined samples that have those of an estimator, and the number of their first row there."""
        spec, (x, target, weights) = e._network.spec, samples
        key = spec, e._network._backend_for(x), str(x.dtype), target.dtype.kind, target.shape[1:], weights is None
        joined = self._parts.setdefault(key, _JoinedSamples(spec))
        first = 0
        for known in joined.samples:
            if known.x is x and _is_same(known.target, target) and _is_same(known.weights, weights):
                return joined, first
            first += known.rows
        joined.samples.append(samples)
        return joined, first


def _is_same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


class _JoinedFit:
    """The fit of an estimator that waits for those to be trained with it."""

    def __init__(
        self,
        job: int,
        e: Any,
        samples: Samples,
        rows: np.ndarray | None,
        start: Start,
        place: tuple[_JoinedSamples, int],
    ) -> None:
        self.job, self.estimator, self.samples, self.order = job, e, samples, start.order
        self.backend, self.batch_size = e._network._backend_for(samples.x), start.batch_size
        self.joined, first = place
        chosen = np.arange(samples.rows) if rows is None else rows
        self.stopped = False
        self.multilabel = is_multilabel(e._network.spec, samples.target)
        self.held_out: Samples | None = None
        self.held_out_rows = np.zeros(0, dtype=np.int64)
        if start.rows is not None and start.held_out is not None:
            held_out = chosen[start.held_out]
            weights = None if samples.weights is None else samples.weights[held_out]
            self.held_out = Samples(None, samples.target[held_out], weights)  # their x is on the device
            self.held_out_rows, chosen = first + held_out, chosen[start.rows]
        self.rows = first + chosen

    @property
    def key(self) -> tuple[Any, ...]:
        """What is the same for networks that are trained in one program, besides their structure."""
        e = self.estimator
        return id(self.joined), len(self.rows), self.batch_size, len(self.held_out_rows), e.shuffle


@dataclass(frozen=True)
class _OwnOrders(MembersOrders):
    """The orders of members that are shuffled as scikit-learn does."""

    each: tuple[Any, ...]

    @property
    def count(self) -> int:
        return len(self.each)

    def positions(self, first: int, epochs: int) -> np.ndarray:
        return np.stack([[order(epoch) for epoch in range(first, first + epochs)] for order in self.each])


class _JoinedStopping(StoppingRule):
    """scikit-learn's rule, for each estimator by itself; and successive halving of them all."""

    training: EnsembleFit

    def __init__(self, fits: Sequence[_JoinedFit], keeps_best: bool, halving: Halving | None) -> None:
        self._fits, self.keeps_best, self._halving = fits, keeps_best, halving
        self._epochs = 0

    def drop(self, parts: Sequence[TrainedMembers]) -> list[int]:
        self._epochs += 1
        halving = self._halving
        if halving is None or not halving.is_due(self._epochs):
            return []
        compared = {halving.candidates[fit.job] for fit in self._fits if not fit.stopped}
        if len(compared) < 2:
            return []
        states = {result.number: result.state for result in self.training.results}
        for part in parts:
            for number, state in part.states(np.arange(len(part.numbers)), best=False):
                states.setdefault(number, state)
        jobs = []
        for number, fit in enumerate(self._fits):
            if halving.candidates[fit.job] in compared:
                fit.estimator._network.state, fit.estimator._network.backend = states[number], fit.backend
                fit.estimator._record_placement(fit.samples.x)
                jobs.append(fit.job)
        halving.dropped.update(compared - halving.best(jobs))
        dropped = [n for n, fit in enumerate(self._fits) if halving.candidates[fit.job] in halving.dropped]
        for number in dropped:
            self._fits[number].stopped = True
        return dropped

    def update(self, part: TrainedMembers, logs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        fits = [self._fits[k] for k in part.numbers]
        raw = self._held_out_outputs(part, fits) if self.keeps_best else [None] * len(fits)
        better, stops = np.zeros(len(fits), dtype=bool), np.zeros(len(fits), dtype=bool)
        for k, (number, fit, outputs) in enumerate(zip(part.numbers, fits, raw, strict=True)):
            e = fit.estimator
            if fit.stopped:
                continue
            loss = float(logs["loss"][number])
            better[k], stale = end_epoch(e, len(fit.rows), loss, outputs, fit.held_out)
            if stale:
                converge(e)
            fit.stopped = stops[k] = stale or e.n_iter_ >= e.max_iter
        return better, stops

    def _held_out_outputs(self, part: TrainedMembers, fits: Sequence[_JoinedFit]) -> np.ndarray:
        """Return what the estimators compute their scores from, with an axis of members in front."""
        backend, numbers = part.backend, np.stack([fit.held_out_rows for fit in fits])
        found = []
        for some in slices(numbers.shape[1], part.rows_at_once):
            rows = numbers[:, some]
            with backend.context():
                x = backend.xp.take(part.data.x, backend.indices(rows.reshape(-1)), axis=0)
                x = backend.xp.reshape(x, (*rows.shape, x.shape[1]))
            found.append(to_numpy(part.run(fits[0].estimator._scored, x, own_rows=True)))
        return np.concatenate(found, axis=1)


def _prepared(fits: Sequence[_JoinedFit], backend: Backend, errors: list[Exception | None]) -> list[_JoinedFit]:
    """Place the rows on a backend; return the fits whose targets suit their losses, and note the errors of others."""
    ready: list[_JoinedFit] = []
    known: dict[int, Exception | None] = {}
    for fit in fits:
        if id(fit.joined) not in known:
            known[id(fit.joined)] = None
            try:
                fit.joined.dataset(backend)
            except Exception as error:
                known[id(fit.joined)] = error
        errors[fit.job] = known[id(fit.joined)]
        if errors[fit.job] is None:
            ready.append(fit)
    return ready


def _train_joined(fits: Sequence[_JoinedFit], backend: Backend, rule: _JoinedStopping) -> None:
    """Train the networks of some estimators, and set the attributes that describe it."""
    networks = [fit.estimator._network for fit in fits]
    parts: list[TrainedMembers] = []
    for group in Groups(networks):
        for same in group.divided(lambda k: fits[k].key):
            parts += _members(same, fits, networks, backend)
    epochs = max(fit.estimator.max_iter for fit in fits)
    rule.training = training = EnsembleFit(len(fits), parts, epochs, rule)
    training.run()
    if training.history.ended:
        raise KeyboardInterrupt
    for number, state, steps, epochs in training.results:
        network, data = networks[number], fits[number].joined.dataset(backend)
        network.state, network.backend, network.steps, network.epochs = state, backend, steps, epochs
        network.labels, network.multilabel = data.labels or network.labels, fits[number].multilabel
        network.history = History({"loss": list(fits[number].estimator.loss_curve_)})
        network.history.how = training.history.how


def _members(
    group: Group, fits: Sequence[_JoinedFit], networks: Sequence[Any], backend: Backend
) -> Iterator[TrainedMembers]:
    """Return networks that can be trained in one program, in blocks of a good size."""
    fit, network = fits[group.numbers[0]], networks[group.numbers[0]]
    data = fit.joined.dataset(backend)
    options = FitOptions(1, fit.batch_size, fit.order, 0.0, None, (), lbfgs=False)
    everything = np.arange(data.rows)

    def orders(members: TrainedMembers) -> Orders:
        each = tuple(fits[k].order for k in members.numbers)
        keys = np.zeros((len(each), 2), dtype=np.int32)  # not used
        return (
            _OwnOrders(members.batching, keys, each) if callable(fit.order) else MembersOrders(members.batching, keys)
        )

    for block in blocks(group, network, backend, fit.batch_size, len(fit.rows)):
        rows = [fits[k].rows for k in block.numbers]
        same = all(np.array_equal(some, everything) for some in rows)
        batching = options.batching(data, None if same else np.stack(rows), backend, network.parameter_count)
        yield TrainedMembers(block, networks, backend, data, batching, orders)
