"""An estimator whose fitted part is a network: where it is, what it shows, how it is copied and moved.

Requires scikit-learn.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils._pprint import _EstimatorPrettyPrinter
from sklearn.utils.validation import check_is_fitted

from ..program.ir import Array
from ..runtime.registry import get_backend
from ..training.network import Network
from . import inputs


class OnNetwork(BaseEstimator):
    """What the estimators have in common. ``_coef`` is one of the network's arrays, near X."""

    _network: Network
    _like: Any = None
    """Of X, none of its rows: what library and device the results belong to; None for NumPy."""

    def _keep(self, parameters: dict[str, Any]) -> None:
        """Each parameter as an attribute of its name, and no more, as scikit-learn wants of ``__init__``: its locals()."""
        self.__dict__.update((name, value) for name, value in parameters.items() if name != "self")

    @property
    def network_(self) -> Network:
        """The network itself."""
        return self._fitted("network_")

    @property
    def _coef(self) -> Array:
        raise NotImplementedError

    def _fitted(self, name: str) -> Network:
        if not hasattr(self, "_network"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}: fit it first")
        return self._network

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """What fails leaves the estimator as it was."""
        before = {name: list(v) if isinstance(v, list) else v for name, v in self.__dict__.items()}
        network = before.get("_network")
        inside = dict(network.__dict__) if network is not None else {}
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            if network is not None:
                network.__dict__.clear()
                network.__dict__.update(inside)
            raise

    def _settle_where(self, x: Any) -> None:
        """After training: where X was, and where the network is."""
        self._like = x[:0, :] if inputs.is_foreign(x) else None
        self.backend_ = str(self._network.backend)

    def _near(self, array: Array) -> Array:
        """In the library and on the device of the X that it was trained on."""
        return self._network._convert_like(array, np.empty(0) if self._like is None else self._like)

    def _checked(self, X: Any, method: str) -> Any:
        """X as it is for prediction."""
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="_coef", method=method)
        return inputs.rows(self, X, reset=False)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a network that was trained."""
        return hasattr(self, "backend_")

    def __sklearn_tags__(self) -> Any:
        """With sparse matrices, and arrays of any library."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.array_api_support = True
        return tags

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """As scikit-learn writes it, and what it was trained on."""
        text = super().__repr__(N_CHAR_MAX)
        return f"{text}  # trained on {self.backend_}" if hasattr(self, "backend_") else text

    def __getstate__(self) -> dict[str, Any]:
        """With where X was as a name, so that it can be read where there is no such device."""
        state = super().__getstate__().copy()
        if state.get("_like") is not None:
            state["_like"] = get_backend(state["_like"]).full_name
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """On the backend of before if it is here, else on "auto"."""
        super().__setstate__(state)
        if isinstance(self._like, str):
            home = self._network.backend
            self._like = home.xp.empty((0, 0), device=home.device) if home.full_name == self._like else None

    def __sklearn_array_api_convert__(self, converter: Callable[[Any], Any]) -> Any:
        """A copy whose arrays are where ``converter`` brings them."""
        new = copy.copy(self)
        new.__dict__.update({name: list(v) for name, v in self.__dict__.items() if isinstance(v, list)})
        like = converter(self._coef)
        new._network = copy.deepcopy(self._network)
        new._network._move(get_backend(like))
        new._settle_where(like)
        if inputs.is_foreign(getattr(self, "classes_", None)):
            new.classes_ = converter(self.classes_)
        return new


_EstimatorPrettyPrinter._dispatch[OnNetwork.__repr__] = (
    _EstimatorPrettyPrinter._pprint_estimator
)  # so that lines are broken
