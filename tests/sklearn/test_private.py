"""Which parts of scikit-learn the estimators use, and that importing them changes none."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sklearn.linear_model import Perceptron
from sklearn.model_selection import RandomizedSearchCV
from sklearn.neural_network import MLPClassifier

import portablenn.sklearn

FOLDER = Path(portablenn.sklearn.__file__).parent


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_importing_the_estimators_changes_nothing_in_scikit_learn() -> None:
    code = """
import sys
import sklearn, sklearn.linear_model, sklearn.neural_network, sklearn.model_selection, sklearn.utils._pprint

def content(value):
    if isinstance(value, dict):
        return {key: id(item) for key, item in value.items()}
    return [id(item) for item in value] if isinstance(value, (list, tuple, set)) else id(value)

def attributes():
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "sklearn"]
    found = {}
    for module in modules:
        for name, value in vars(module).items():
            if name != "__warningregistry__":
                found[module.__name__, name] = content(value)
            if isinstance(value, type) and value.__module__.partition(".")[0] == "sklearn":
                found.update({(value, key): content(item) for key, item in vars(value).items()})
    return found, sklearn.get_config()

before, configuration = attributes()
import portablenn.sklearn
after, same = attributes()
assert len(before) > 5000 and configuration == same
changed = [key for key in before if before[key] != after.get(key)]
# a module becomes an attribute of its package when it is first imported
added = [key for key in after.keys() - before.keys() if isinstance(key[0], type) and key[0] in {k for k, _ in before}]
assert not changed and not added, (changed, added)
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr


def _private_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn"):
            yield from (f"{node.module}.{a.name}" for a in node.names if "._" in f"{node.module}.{a.name}")
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("sklearn.") and "._" in a.name)
        elif (
            isinstance(node, ast.Attribute) and node.attr.startswith("_") and ast.unparse(node).startswith("reference.")
        ):
            yield ast.unparse(node)


def test_one_module_alone_uses_private_parts_of_scikit_learn() -> None:
    private = {path.name: sorted(_private_names(path)) for path in FOLDER.glob("*.py")}
    assert {name for name, names in private.items() if names} == {"private.py"}, private


def test_one_module_alone_uses_private_attributes_of_scikit_learns_estimators() -> None:
    kinds = (RandomizedSearchCV, MLPClassifier, Perceptron)
    private = {name for kind in kinds for name in dir(kind) if name.startswith("_") and not name.startswith("__")}
    private |= {"_checked_cv_orig"}
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.py")}
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {node.target.id for node in nodes if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    used = {
        name: {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & private - own
        for name, tree in trees.items()
    }
    assert {name for name, names in used.items() if names} == {"private.py"}, used


@pytest.mark.parametrize(
    "gone",
    ["sklearn.base._fit_context", "sklearn.utils._param_validation.Interval", "sklearn.linear_model.Perceptron._parameter_constraints",
     "sklearn.model_selection._search.BaseSearchCV._check_scorers_accept_sample_weight"],
)  # fmt: skip
def test_a_scikit_learn_without_a_private_part_raises_an_import_error_that_names_both(gone: str) -> None:
    owner, _, name = gone.rpartition(".")
    code = f"""
import sklearn, sklearn.base, sklearn.utils._param_validation, sklearn.linear_model, sklearn.neural_network, sklearn.model_selection
delattr({owner}, {name!r})
if {name!r} == "_parameter_constraints":  # the base classes have others
    for base in {owner}.__mro__[1:-1]:
        if {name!r} in vars(base):
            delattr(base, {name!r})
try:
    import portablenn.sklearn
except ImportError as error:
    assert sklearn.__version__ in str(error) and {name!r} in str(error) and "pip install" in str(error), error
else:
    raise AssertionError("no error")
"""
    done = _run(code)
    assert done.returncode == 0, done.stderr
