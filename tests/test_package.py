"""The package as a whole: what its import costs and loads, its public names, what the core imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from processes import run_python

import portablenn as pnn
from portablenn.data import read_idx


def test_import_loads_no_optional_package() -> None:
    optional = [
        "torch",
        "jax",
        "cupy",
        "numba",
        "scipy",
        "sklearn",
        "matplotlib",
        "rich",
        "typer",
        "safetensors",
        "pandas",
        "hypothesis",
        "array_api_strict",
    ]
    loaded = run_python(f"import sys, portablenn; print([m for m in {optional} if m in sys.modules])")
    assert loaded == "[]"


def test_training_and_prediction_load_no_optional_package() -> None:
    code = (
        "import sys, numpy as np, portablenn as pnn\n"
        "net = pnn.mlp([2, 3, 2], loss='softmax_cross_entropy')\n"
        "net.fit(np.eye(2), [0, 1], verbose=False); net.predict(np.eye(2)); net.summary()\n"
        "print([m for m in 'torch jax scipy sklearn matplotlib rich typer'.split() if m in sys.modules])"
    )
    assert run_python(code) == "[]"


def test_import_reads_no_module_that_only_files_need() -> None:
    lazy = "gzip zipfile pathlib json portablenn.data.npy portablenn.data.mnist portablenn.convert portablenn.tables portablenn.plots"
    assert (
        run_python(
            f"import sys, numpy; before = set(sys.modules); import portablenn; print([m for m in {lazy.split()} if m in sys.modules and m not in before])"
        )
        == "[]"
    )


def test_import_reads_nothing_of_networks_and_transforms() -> None:
    later = [f"portablenn.{name}" for name in "nn training callbacks data files transforms random".split()]
    assert run_python(f"import sys, portablenn; print([m for m in {later} if m in sys.modules])") == "[]"


@pytest.mark.parametrize(
    "name", ["nn", "training", "transforms", "random", "callbacks", "files", "losses", "mlp", "grad", "report"]
)
def test_each_lazy_name_is_there_after_the_import_alone(name: str) -> None:
    assert (
        run_python(f"import portablenn; portablenn.{name}; print(portablenn.{name} is portablenn.__dict__[{name!r}])")
        == "True"
    )


def test_import_costs_at_most_seven_tenths_of_what_numpy_costs(tmp_path: Path) -> None:
    """The least ratio of several runs, in processor time of the importing thread (BLAS's threads spin), of compiled files.

    It is a ratio because milliseconds depend on the machine: the import of NumPy alone took from 110 to 180 ms on one, within a minute.
    """
    code = (
        "import time\nstart = time.thread_time()\nimport numpy\nhalf = time.thread_time()\nimport portablenn\n"
        "print((time.thread_time() - half) / (half - start))"
    )
    assert any(float(run_python(code, PYTHONPYCACHEPREFIX=str(tmp_path))) <= 0.7 for _ in range(15))


def test_every_public_name_is_there_and_has_a_docstring() -> None:
    for name in pnn.__all__:
        thing = getattr(pnn, name)
        assert thing.__doc__ or name == "xp", name


def test_dir_shows_the_public_names_only() -> None:
    assert dir(pnn) == sorted(pnn.__all__)
    assert {"layers", "random", "Loss", "Optimizer", "data", "plots"} <= set(dir(pnn))
    assert not {"training", "runtime", "annotations", "TYPE_CHECKING"} & set(dir(pnn))


def test_lazy_names_are_those_of_their_modules() -> None:
    assert pnn.data.read_idx is read_idx
    assert pnn.TableModel is pnn.tables.TableModel
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        pnn.data.missing  # noqa: B018


OPTIONAL = {
    "plots": {"matplotlib", "sklearn"}, "cli": {"typer", "rich", "portablenn"}, "progress": {"rich"}, "mnist": {"sklearn"},
    "safetensors_file": {"safetensors"}, "collect": {"pytest"}, "inputs": {"narwhals"}, "logs": {"tensorboardX", "mlflow"},
    "pictures": {"IPython", "matplotlib"}, "report": {"matplotlib"}, "onnx": {"onnx"}, "weights": {"safetensors"},
    "readers": {"pyarrow"}, "parts": {"pyarrow"}, "table": {"pyarrow"}, "writers": {"pyarrow"}, "cells": {"pyarrow"}, "columns": {"pyarrow"}, "types": {"pyarrow"}, "target": {"pyarrow"},
    "model": {"pyarrow"}, "metrics": {"sklearn"}, "linear": {"sklearn"}, "threads": {"threadpoolctl"},
}  # fmt: skip


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [(node.module or "").partition(".")[0]]
    return []


def beside(path: Path) -> bool:
    """Whether a file of an installed package is of those that lie beside it in a checkout."""
    return bool({"examples", "benchmarks"} & {parent.name for parent in path.parents})


def test_the_core_imports_numpy_and_array_api_compat_only() -> None:
    """Optional packages are imported where they are used, inside functions; the command line and the estimators alone are built on one."""
    allowed = {"numpy", "array_api_compat"} | set(sys.stdlib_module_names)
    package = Path(pnn.__file__).parent
    files = [path for path in package.rglob("*.py") if not beside(path)]
    assert len(files) > 25
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_top = {name for node in tree.body for name in _imported(node)}
        anywhere = {name for node in ast.walk(tree) for name in _imported(node)}
        command_line = {"typer", "rich", "portablenn", "pyarrow"}
        built_on = command_line if path.parent.name == "cli" else {"sklearn"} & {path.parent.name}
        assert anywhere - allowed - built_on - OPTIONAL.get(path.stem, set()) == set(), path.name
        assert at_top - allowed <= built_on, path.name


def test_nothing_of_the_core_names_an_optional_array_library() -> None:
    package = Path(pnn.__file__).parent
    for path in package.rglob("*.py"):
        if not beside(path):
            code = ast.parse(path.read_text(encoding="utf-8"))
            compared = {
                c.value
                for node in ast.walk(code)
                if isinstance(node, ast.Compare)
                for c in ast.walk(node)
                if isinstance(c, ast.Constant) and isinstance(c.value, str)
            }
            assert compared & {"cupy", "torch", "jax", "numba", "dask"} == set(), path.name


def test_every_public_function_and_class_has_an_example() -> None:
    """Doctests run them; errors are what examples end in, and say what they are by their message."""
    from portablenn import activations, losses, optimizers, schedules

    public = [getattr(pnn, name) for name in pnn.__all__]
    public += [*activations.ACTIVATIONS.values(), *losses.LOSSES.values(), *optimizers.OPTIMIZERS.values()]
    public += schedules.SCHEDULES
    for thing in public:
        error = isinstance(thing, type) and issubclass(thing, Exception)
        if callable(thing) and not error:
            assert ">>>" in (thing.__doc__ or ""), thing
