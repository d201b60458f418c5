"""The package as it is installed: what its import costs and loads, its command line, its data files, its pictures."""

from __future__ import annotations

import ast
import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.data import digits, read_idx


def _python(code: str, **environment: str) -> str:
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env=inherited | {"PORTABLENN_BACKEND": "numpy"} | environment,
    )
    return run.stdout.strip()


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
    loaded = _python(f"import sys, portablenn; print([m for m in {optional} if m in sys.modules])")
    assert loaded == "[]"


def test_training_and_prediction_load_no_optional_package() -> None:
    code = (
        "import sys, numpy as np, portablenn as pnn\n"
        "net = pnn.mlp([2, 3, 2], loss='softmax_cross_entropy')\n"
        "net.fit(np.eye(2), [0, 1], verbose=False); net.predict(np.eye(2)); net.summary()\n"
        "print([m for m in 'torch jax scipy sklearn matplotlib rich typer'.split() if m in sys.modules])"
    )
    assert _python(code) == "[]"


def test_import_reads_no_module_that_only_files_need() -> None:
    lazy = "gzip zipfile pathlib json portablenn.data.npy portablenn.data.mnist portablenn.convert portablenn.tables portablenn.plots"
    assert (
        _python(
            f"import sys, numpy; before = set(sys.modules); import portablenn; print([m for m in {lazy.split()} if m in sys.modules and m not in before])"
        )
        == "[]"
    )


def test_import_costs_at_most_40_ms_on_top_of_numpy(tmp_path: Path) -> None:
    """The least of several runs, in processor time of the thread that imports (BLAS's threads spin beside it); of
    compiled files, as any import after the first finds them.
    """
    code = (
        "import time, numpy\nstart = time.thread_time()\nimport portablenn\nprint(1000 * (time.thread_time() - start))"
    )
    assert any(float(_python(code, PYTHONPYCACHEPREFIX=str(tmp_path))) <= 40 for _ in range(15))


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
    "readers": {"pyarrow"}, "columns": {"pyarrow"}, "preprocessing": {"pyarrow"}, "model": {"pyarrow"}, "metrics": {"sklearn"},
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


DEMOS = {
    "perceptron": ("9.67299303 -0.2078435  -4.62963669", ["perceptron.png"]),
    "three-layers": ("Error before step  50000: 0.0035101226", ["three_layers.png"]),
    "first-network": ("[2.0, 1.5]: 0.8710191", ["first_network.png"]),
    "threshold-neuron": ("AND [0. 0. 0. 1.]", ["threshold_neuron.png"]),
    "xor": ("3-bit parity, a hidden layer   [0 1 1 0 1 0 0 1], 100% right", ["xor.png"]),
}


def _command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "portablenn", *arguments]
    clean = {k: v for k, v in os.environ.items() if k != "PORTABLENN_DATA"}
    figures = {"MPLBACKEND": "Agg", "PORTABLENN_BACKEND": "numpy"}  # which are told to every digit
    return subprocess.run(command, capture_output=True, text=True, env={**clean, **figures, **environment})


@pytest.mark.parametrize("name", DEMOS)
def test_demo_prints_what_it_learns_and_saves_its_picture(name: str, tmp_path: Path) -> None:
    pytest.importorskip("typer")
    pytest.importorskip("matplotlib")
    run = _command("demo", name, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    says, pictures = DEMOS[name]
    assert says in run.stdout
    for picture in pictures:
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_demo_digits_reads_digits(activation: str, tmp_path: Path) -> None:
    for package in ("typer", "matplotlib", "sklearn", "rich"):
        pytest.importorskip(package)
    run = _command("demo", "digits", "--epochs", "25", "--activation", activation, "--out", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert "no folder of MNIST files was given" in run.stdout
    assert "backend: numpy, device: cpu" in run.stdout
    assert "val_accuracy" in run.stdout
    assert "confusion matrix" in run.stdout
    assert float(run.stdout.partition("test accuracy ")[2][:6]) > 0.9
    for picture in ("digits_weights.png", "digits_seen.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "nothing"], "nothing"),
        (["demo", "digits", "--data", "/no/such/folder"], "portablenn: "),
        (["demo", "digits", "--activation", "swish"], "swish"),
        (["demo", "digits", "--backend", "no_such"], "cannot be imported"),
        (["demo", "xor", "--epochs", "3"], "--epochs is for the demo digits alone"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message_and_a_status(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    pytest.importorskip("typer")
    run = _command(*arguments, "--out", str(tmp_path))
    assert run.returncode != 0
    assert says in run.stderr
    assert "Traceback" not in run.stderr


def test_the_version_is_told() -> None:
    pytest.importorskip("typer")
    assert _command("--version").stdout.strip() == f"portablenn {pnn.__version__}"


def test_jax_without_64_bits_trains_without_a_warning() -> None:
    pytest.importorskip("jax")
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "import numpy as np, jax.numpy as jnp, portablenn as pnn\n"
        "for net, x in ((pnn.mlp([2, 4, 2], loss='softmax_cross_entropy'), jnp.ones((20, 2))),\n"
        "               (pnn.mlp([2, 4, 2], loss='softmax_cross_entropy', backend='jax'), np.ones((20, 2)))):\n"
        "    y = (jnp if x.dtype == 'float32' else np).arange(20) % 2\n"
        "    net.fit(x, y, epochs=2, validation_split=0.25, class_weight='balanced')\n"
        "    print(net.predict(x).shape, net.predict_proba(x).shape, len(net.evaluate(x, y)))\n"
    )
    assert _python(code, JAX_ENABLE_X64="0", JAX_PLATFORMS="cpu").splitlines() == ["(20,) (20, 2) 2"] * 2


@pytest.mark.parametrize("name", ["torch:bogus", "torch:cuda", "jax:bogus", "array_api_strict:device9"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    library = pytest.importorskip(name.partition(":")[0])
    if name == "torch:cuda" and library.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(pnn.BackendError, match=f"backend '{name}' cannot be used"):
        pnn.get_backend(name)


def test_devices_are_named_as_their_library_names_them() -> None:
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    assert str(pnn.get_backend("jax:cpu")) == "jax on cpu:0"
    assert str(pnn.get_backend("array_api_strict:device1")) == "array_api_strict on device1"
    assert pnn.get_backend("torch:cpu") == pnn.get_backend("torch")


def _idx(array: np.ndarray, code: int) -> bytes:
    return bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_compressed_or_not(tmp_path: Path) -> None:
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images, 8)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(_idx(np.asarray([7, 2], dtype=np.uint8), 8))
    found = digits(tmp_path)
    np.testing.assert_array_equal(found.images, images)
    assert found.labels.tolist() == [7, 2]
    (tmp_path / "floats").write_bytes(_idx(np.asarray([1.5, -2.0], dtype=">f4"), 0x0D))
    assert read_idx(tmp_path / "floats").tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no IDX file"),
        (b"\x00\x00\x08", "no IDX file"),
        (b"PK\x03\x04", "no IDX file"),
        (b"\x00\x00\x08\x02\x00\x00", "ends within its header"),
        (_idx(np.zeros(4, dtype=np.uint8), 8)[:-1], "holds fewer bytes"),
        (_idx(np.zeros(4, dtype=np.uint8), 8) + b"!", "holds more bytes"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "refused"),
    ],
)
def test_damaged_idx_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_idx(tmp_path / "file")


def test_a_folder_without_digits_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds 0 files like 'train-images-idx3-ubyte.gz'"):
        digits(tmp_path)


def test_pictures_are_drawn(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    pytest.importorskip("sklearn")
    from portablenn import plots

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.integers(0, 2, 60)
    net = pnn.mlp([2, 4, 2], loss="softmax_cross_entropy")
    history = net.fit(X, y, epochs=3, validation_split=0.2)
    pictures: dict[str, Any] = {
        "loss": history.plot(),
        "weights": plots.first_layer_weights(net, (1, 2)),
        "boundary": plots.decision_boundary(net, X, y),
        "confusion": plots.confusion_matrix(y, net.predict(X)),
        "images": plots.predicted_images(rng.random((5, 8, 8)), np.arange(5), np.zeros(5, int)),
    }
    for name, axes in pictures.items():
        assert plots.save(axes, tmp_path / f"{name}.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="the first layer has 2 inputs"):
        plots.first_layer_weights(net, (2, 2))


def test_every_public_function_and_class_has_an_example() -> None:
    """Doctests run them; errors are what examples end in, and say what they are by their message."""
    from portablenn import activations, losses, optimizers, schedules

    public = [getattr(pnn, name) for name in pnn.__all__]
    public += [*activations.ACTIVATIONS.values(), *losses.LOSSES.values(), *optimizers.OPTIMIZERS.values()]
    public += [
        getattr(schedules, name)
        for name in ("ExponentialDecay", "InverseTimeDecay", "CosineDecay", "StepDecay", "WarmUp")
    ]
    for thing in public:
        error = isinstance(thing, type) and issubclass(thing, Exception)
        if callable(thing) and not error:
            assert ">>>" in (thing.__doc__ or ""), thing
