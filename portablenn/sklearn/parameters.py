"""The parameters of the multi-layer perceptrons: their documentation and constraints."""

from __future__ import annotations

from numbers import Real
from typing import Any

from ..nn import activations, losses
from ..program.precision import PRECISIONS
from .private import Interval, StrOptions

CONSTRAINTS: dict[str, Any] = {
    "activation": [StrOptions({"logistic", *activations.ACTIVATIONS}), callable, "array-like"],
    "loss": [str, losses.Loss],
    "backend": "no_validation",
    "dtype": "no_validation",
    "precision": [StrOptions(set(PRECISIONS)), None],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "batch_norm": ["boolean"],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    "clip_value": [Interval(Real, 0, None, closed="neither"), None],
    "callbacks": [list, tuple],
}
"""Constraints of the parameters that scikit-learn's estimators lack or restrict more."""


def document(summary: str, name: str, parameters: str, attributes: str, examples: str) -> str:
    """Return the docstring of an estimator: its specific part, and the parameters and attributes that all share."""
    return f"""{summary}

    Drop-in for ``sklearn.neural_network.{name}``, on the library and device of X.

    Parameters
    ----------
    {parameters.strip()}
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle, \
random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1, beta_2, \
epsilon, n_iter_no_change, max_fun
        As in scikit-learn. ``activation`` may also be any activation of portablenn, a function in Array API code, or a list
        with one for each hidden layer.
    backend : str, module or array, default="auto"
        Where to train: "auto" for where X is, or what `portablenn.get_backend` accepts.
    dtype : {{"float32", "float64"}}, default=None
        None is float32 for X of float32, else float64.
    precision : {{"tf32", "bfloat16"}}, default=None
        Rounds the factors of matrix products, for tensor cores; with dtype float32. See `portablenn.Network`.
    dropout : float, default=0
        Fraction of the outputs of each hidden layer that is dropped in training.
    batch_norm : bool, default=False
        Whether the outputs of each hidden layer are normalized.
    clip_norm, clip_value : float, default=None
        Bounds of the norm and of the elements of the gradient; not with "lbfgs".
    callbacks : list of Callback, default=()
        See `portablenn.callbacks`.

    Attributes
    ----------
    {attributes}coefs_, intercepts_ : list of arrays of shape (inputs, units) and (units,)
        Weights and biases of each layer, in the library and on the device of X.
    loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, n_layers_, n_outputs_, \
out_activation_, t_, n_features_in_, feature_names_in_
        As in scikit-learn.
    backend_ : str
        The backend that the network was trained on.
    network_ : portablenn.Network
        The network itself.

    Examples
    --------
    {examples.strip()}
    """
