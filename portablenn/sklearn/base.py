"""The base of the estimators, whose fitted part is a network: placement, representation, copies and pickles."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.base import BaseEstimator, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils.validation import check_is_fitted

from ..program.ir import Array
from ..runtime.registry import get_backend
from ..training.network import Network
from . import inputs


class ScoreMixin:
    """``score`` of arrays that NumPy cannot convert; comes before scikit-learn's mixin in the bases of a class."""

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the accuracy of a classifier, R² of a regressor, weighted by ``sample_weight``, (n_samples,)."""
        if get_config()["array_api_dispatch"] or not any(map(inputs.is_foreign, (X, y, sample_weight))):
            return super().score(X, y, sample_weight=sample_weight)  # type: ignore[misc]
        metric = accuracy_score if is_classifier(self) else r2_score
        truth, guess, weights = map(inputs.to_host, (y, self.predict(X), sample_weight))  # type: ignore[attr-defined]
        return float(metric(truth, guess, sample_weight=weights))


class CheckedInputMixin:
    """Validation of the rows of a prediction."""

    _like: Any = None
    """No rows of the X of ``fit``, in whose library and on whose device results are; None for NumPy."""

    def _checked(self, X: Any, method: str) -> Any:
        """Return X validated for prediction by ``method``."""
        if not self.__sklearn_is_fitted__():
            check_is_fitted(self)  # raises
        if get_config()["array_api_dispatch"]:
            fitted, given = (get_backend(a).full_name if inputs.is_foreign(a) else "numpy" for a in (self._like, X))
            if fitted != given:
                raise ValueError(
                    f"Inputs passed to {type(self).__name__}.{method}() must use the same namespace and the same device as "
                    f"those passed to fit(): expected {fitted}, got {given}"
                )
        return inputs.rows(self, X, reset=False)

    def __sklearn_is_fitted__(self) -> bool:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags


class UnchangedOnErrorMixin:
    """A fit that fails leaves the estimator, and its network if it has one, as they were."""

    @contextmanager
    def _unchanged_on_error(self) -> Iterator[None]:
        """Restore the estimator and its network where the body raises."""
        before = {name: list(v) if isinstance(v, list) else v for name, v in self.__dict__.items()}
        network = before.get("_network")
        network_before = dict(network.__dict__) if network is not None else {}
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            if network is not None:
                network.__dict__.clear()
                network.__dict__.update(network_before)
            raise


class NetworkEstimator(UnchangedOnErrorMixin, CheckedInputMixin, BaseEstimator):
    """The base of all estimators with one network."""

    _network: Network

    def _set_parameters(self, parameters: dict[str, Any]) -> None:
        """Set the ``locals()`` of ``__init__`` as attributes, unchanged as scikit-learn demands."""
        self.__dict__.update((name, value) for name, value in parameters.items() if name != "self")

    @property
    def network_(self) -> Network:
        """The network itself."""
        return self._fitted_network("network_")

    def _fitted_network(self, attribute: str) -> Network:
        if not hasattr(self, "_network"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}: fit it first")
        return self._network

    def _record_placement(self, x: Any) -> None:
        """Remember the placement of X and of the network after training."""
        self._like = x[:0, :] if inputs.is_foreign(x) else None
        self.backend_ = str(self._network.backend)

    def _to_input_library(self, array: Array) -> Array:
        """Return an array in the library and on the device of the X of ``fit``."""
        return self._network._convert_like(array, np.empty(0) if self._like is None else self._like)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "backend_")

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """Return scikit-learn's representation, and the backend that the network was trained on."""
        # scikit-learn breaks the lines of estimators with its own __repr__ only, so another class represents this one
        kind = type(type(self).__name__, (type(self),), {"__repr__": BaseEstimator.__repr__})
        text = BaseEstimator.__repr__(kind(**self.get_params(deep=False)), N_CHAR_MAX)
        return f"{text}  # trained on {self.backend_}" if hasattr(self, "backend_") else text

    def __getstate__(self) -> dict[str, Any]:
        """Return the state with the placement of X as a name, so that it can be read on a machine without that device."""
        state = super().__getstate__().copy()
        if state.get("_like") is not None:
            state["_like"] = get_backend(state["_like"]).full_name
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the estimator on the backend that it was on if that is usable, else on "auto"."""
        super().__setstate__(state)
        if isinstance(self._like, str):
            home = self._network.backend
            self._like = home.xp.empty((0, 0), device=home.device) if home.full_name == self._like else None

    def __sklearn_array_api_convert__(self, converter: Callable[[Any], Any]) -> Any:
        """Return a copy with its arrays converted, for ``move_estimator_to`` of scikit-learn."""
        new = copy.copy(self)
        new.__dict__.update({name: list(v) for name, v in self.__dict__.items() if isinstance(v, list)})
        like = converter(self._to_input_library(self._network.parameters["dense_1.kernel"]))
        new._network = copy.deepcopy(self._network)
        new._network._move(get_backend(like))
        new._record_placement(like)
        if inputs.is_foreign(getattr(self, "classes_", None)):
            new.classes_ = converter(self.classes_)
        return new
