"""scikit-learn estimators that train where their data is: on NumPy, CuPy, torch, JAX and any other array library.

Requires scikit-learn 1.9 (the extra "sklearn"), and narwhals for tables that are neither NumPy's nor pandas'.
"""

from .convert import from_sklearn
from .ensemble import MLPEnsembleClassifier, MLPEnsembleRegressor
from .export import to_sklearn
from .mlp import MLPClassifier, MLPRegressor
from .perceptron import Perceptron
from .search import MLPSearchCV
from .table import TableClassifier, TableRegressor

__all__ = [
    "MLPClassifier",
    "MLPEnsembleClassifier",
    "MLPEnsembleRegressor",
    "MLPRegressor",
    "MLPSearchCV",
    "Perceptron",
    "TableClassifier",
    "TableRegressor",
    "from_sklearn",
    "to_sklearn",
]
