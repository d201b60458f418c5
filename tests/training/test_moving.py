"""Networks and arrays that move between libraries; and a device whose memory does not suffice."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn.callbacks import Callback
from portablenn.data.dataset import make_dataset
from portablenn.runtime.arrays import to_numpy
from portablenn.training.memory_estimate import explain_out_of_memory

NAMES = ("numpy", "torch", "jax", "array_api_strict:device1")
PAIRS = list(itertools.permutations(NAMES, 2))

X = np.random.default_rng(0).normal(size=(50, 4))
Y = np.arange(50) % 3


def _here(*names: str) -> None:
    for name in names:
        pytest.importorskip(name.partition(":")[0])


def _net(backend: Any, **facts: Any) -> pnn.Network:
    layers = [pnn.Dense(8, "tanh"), pnn.BatchNorm(), pnn.Dropout(0.2), pnn.Dense(3)]
    facts = {"loss": "softmax_cross_entropy", "optimizer": pnn.Adam(0.01), "dtype": "float64", "seed": 3} | facts
    return pnn.Network(layers, 4, backend=backend, **facts)


def _values(net: pnn.Network) -> list[np.ndarray]:
    return [to_numpy(a) for a in (net.state.theta, *net.state.slots, net.state.statistics)]


def _agree(one: pnn.Network, other: pnn.Network, rtol: float) -> None:
    for a, b in zip(_values(one), _values(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_a_network_that_moved_trains_as_one_that_stayed(start: str, end: str) -> None:
    """Dropout and shuffled batches: other masks or another order would be seen at once."""
    _here(start, end)
    stayed, moved = _net("numpy"), _net(start)
    losses = stayed.fit(X, Y, epochs=6, batch_size=16)["loss"]
    before = moved.fit(X, Y, epochs=3, batch_size=16)["loss"]
    assert moved.to(end) is moved
    assert moved.backend == pnn.get_backend(end)
    np.testing.assert_allclose(before + moved.fit(X, Y, epochs=3, batch_size=16)["loss"], losses, rtol=1e-9)
    assert (moved.steps, moved.epochs) == (stayed.steps, stayed.epochs)
    _agree(moved, stayed, 1e-9)


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_a_network_saved_on_one_library_trains_on_on_another(start: str, end: str, tmp_path: Path) -> None:
    _here(start, end, "safetensors")
    net, stayed = _net(start), _net("numpy")
    net.fit(X, Y, epochs=3, batch_size=16)
    net.save(tmp_path / "net.safetensors")
    loaded = pnn.load(tmp_path / "net.safetensors", backend=end)
    assert loaded.backend == pnn.get_backend(end)
    for a, b in zip(_values(net), _values(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    loaded.fit(X, Y, epochs=3, batch_size=16)
    stayed.fit(X, Y, epochs=6, batch_size=16)
    _agree(loaded, stayed, 1e-9)


def test_a_network_moved_to_a_named_backend_stays_there_and_to_auto_follows_the_data(other_library: Any) -> None:
    net = _net("auto").to(other_library.name)
    net.fit(X, Y)
    assert net.backend == other_library.backend
    there = other_library.array(X), other_library.array(Y)
    net.to("numpy").fit(*there)
    assert net.backend.name == "numpy"
    net.to("auto")
    assert net.backend == pnn.get_backend("auto")
    net.fit(*there)
    assert net.backend == other_library.backend


def test_a_network_that_cannot_move_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    _here("array_api_strict")
    net = _net("numpy")
    facts = dict(net.__dict__)
    for nowhere in ("no_such_library", "numpy:gpu", 3, "array_api_strict:device9"):
        with pytest.raises(pnn.BackendError):
            net.to(nowhere)
    full = pnn.get_backend("array_api_strict:device2")
    given = iter((full.own(np.zeros(3)),))  # the second array does not fit
    monkeypatch.setattr(pnn.Backend, "own", lambda self, x, dtype=None: next(given))
    with pytest.raises((MemoryError, RuntimeError)):
        net.to(full)
    assert net.__dict__ == facts


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_to_arrays_that_were_handed_in_does_not_change_a_network(name: str) -> None:
    _here(name)
    net = _net(name)
    kernel = np.ones((4, 8))
    net.set_parameters({"dense_1.kernel": kernel})
    kernel[...] = 7.0
    assert set(to_numpy(net.parameters["dense_1.kernel"]).ravel()) == {1.0}


@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_a_moved_network_shares_no_memory_with_its_previous_backend(start: str, end: str) -> None:
    _here(start, end)
    net = _net(start)
    before, old = _values(net.to(start)), net.state
    before = [a.copy() for a in before]
    net.to(end)
    for array in (old.theta, *old.slots, old.statistics):
        if start != "jax":  # whose arrays never change
            array[...] = 5.0
    for a, b in zip(_values(net), before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_that_never_change_are_not_made_of_memory_that_does() -> None:
    _here("jax")
    import mmap

    aligned = np.frombuffer(mmap.mmap(-1, 1 << 16), dtype=np.float32)  # which JAX would share
    array = pnn.get_backend("jax").asarray(aligned)
    aligned[...] = 1.0
    assert not to_numpy(array).any()


class _Borrowed:
    """A namespace that counts what it takes by DLPack."""

    def __init__(self, xp: Any, taken: list[Any]) -> None:
        self._xp, self._taken = xp, taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self._xp, name)

    def from_dlpack(self, x: Any) -> Any:
        self._taken.append(x)
        return self._xp.from_dlpack(x)


@pytest.mark.parametrize(("source", "target", "times"), [(2, 2, 1), (2, 10, 0), (2, 1, 0), (1, 2, 0), (1, 1, 0)])
def test_only_between_gpus_of_one_make_arrays_go_by_dlpack(
    source: int, target: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _here("torch", "array_api_strict")
    import torch

    taken: list[Any] = []
    here = pnn.get_backend("numpy").xp
    backend = pnn.Backend("borrowed", _Borrowed(here, taken))

    class Located(np.ndarray):
        def __dlpack_device__(self) -> tuple[Any, int]:
            return target, 0

    monkeypatch.setitem(backend.__dict__, "_probe", np.zeros(1).view(Located))
    monkeypatch.setattr(torch.Tensor, "__dlpack_device__", lambda self: (source, 0))
    x = torch.arange(3.0)
    if times:  # NumPy asks where the memory is: on the CPU, in truth
        monkeypatch.setattr(_Borrowed, "from_dlpack", lambda self, x: taken.append(x) or np.asarray(x))
    assert backend.asarray(x).tolist() == [0.0, 1.0, 2.0]
    assert len(taken) == times
    assert backend.own(x, "float64").dtype == np.float64


def test_arrays_with_strides_below_zero_go_through_the_host() -> None:
    """torch.from_dlpack aborts the process for them."""
    _here("torch")

    class Reversed(np.ndarray):
        def __dlpack_device__(self) -> Any:
            raise AssertionError("was asked where it lies")

    x = np.arange(3.0).view(Reversed)[::-1]
    backend = pnn.get_backend("torch")
    assert backend._imported(x) is None
    assert backend.asarray(x).tolist() == [2.0, 1.0, 0.0]


class FakeOutOfMemoryError(RuntimeError):
    """As some libraries call theirs."""


class Small(pnn.Backend):
    """A device with little memory; ``room`` bytes of it free. The interpreter would not have more."""

    guarded = False
    room: int | None = 1_000_000
    steps = 0

    def memory(self) -> tuple[int, int] | None:
        return None if self.room is None else (self.room, 8_000_000_000)

    def compile_loop(self, program: Any, carried: int) -> Any:
        loop = super().compile_loop(program, carried)

        def fails(count: int, *arrays: Any) -> Any:
            if self.steps == 0:
                raise FakeOutOfMemoryError("cannot allocate")
            self.steps -= 1
            return loop(count, *arrays)

        return fails


def _small(room: int | None = 1_000_000, steps: int = 0) -> Small:
    backend = pnn.get_backend("array_api_strict:device1")
    small = Small("small", backend.xp, backend.device)
    small.room, small.steps = room, steps
    return small


@pytest.mark.parametrize(
    ("room", "optimizer", "helps"),
    [
        (200_000, pnn.Adam(), r"a step of 400 rows about .* 200 kB of 8 GB are free\. Use a smaller batch_size, by estimate batch_size=\d+$"),
        (1_000, pnn.Adam(), r'Use fewer rows, dtype="float32", or another backend$'),
        (10**9, pnn.Adam(), r"Use fewer rows, or a smaller batch_size$"),
        (None, pnn.Adam(), r"a step of 400 rows about .*B\. Use a smaller batch_size$"),
    ],
)  # fmt: skip
def test_an_out_of_memory_error_has_the_sizes(room: int | None, optimizer: Any, helps: str) -> None:
    _here("array_api_strict")
    small = _small(room)
    net = _net(small, optimizer=optimizer)
    facts = dict(net.__dict__)
    with pytest.raises(
        pnn.OutOfMemoryError, match=rf"^small on .*device1.* is out of memory: the data take 16 kB, .*{helps}"
    ) as told:
        net.fit(np.tile(X, (8, 1)), np.tile(Y, 8), batch_size=None)
    assert isinstance(told.value.__cause__, FakeOutOfMemoryError)
    assert net.__dict__ == facts


def test_the_batch_that_is_proposed_would_fit() -> None:
    from portablenn.program.ir import ArrayType, DType
    from portablenn.training.memory_estimate import MemoryEstimate

    data = ArrayType((400, 4), DType("float64")), ArrayType((400,), DType("int64")), None
    estimate = MemoryEstimate(_net("numpy").model, data, 400)
    small = _small(estimate.step(100))
    assert "by estimate batch_size=100" in estimate.describe(small, MemoryError())


def test_data_too_large_for_memory_are_an_error_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    net = _net("numpy")
    facts = dict(net.__dict__)

    def full(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(type(net.backend), "asarray", full)
    with pytest.raises(pnn.OutOfMemoryError, match="numpy is out of memory: the data take 2 kB"):
        net.fit(X, Y)
    assert net.__dict__ == facts


def test_running_out_of_memory_later_leaves_the_last_complete_epoch() -> None:
    _here("array_api_strict")
    net, whole = _net(_small(steps=2)), _net("numpy")
    with pytest.raises(pnn.OutOfMemoryError):
        net.fit(X, Y, epochs=5, batch_size=25, callbacks=[Callback()])
    whole.fit(X, Y, epochs=2, batch_size=25)
    assert net.epochs == 2
    _agree(net, whole, 1e-9)


def test_smaller_batches_are_not_proposed_for_full_batches() -> None:
    net = _net("numpy", optimizer=pnn.LBFGS())
    error = MemoryError()
    with (
        pytest.raises(pnn.OutOfMemoryError, match="Use an optimizer that takes batches"),
        explain_out_of_memory(net.model, net.backend, make_dataset(net.spec, X, Y), 50),
    ):
        raise error


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    net = _net("numpy")
    with (
        pytest.raises(RuntimeError, match="^other$"),
        explain_out_of_memory(net.model, net.backend, make_dataset(net.spec, X, Y), 50),
    ):
        raise RuntimeError("other")


def test_jax_says_in_words_that_its_memory_is_full() -> None:
    _here("jax", "portablenn_jax")
    backend = pnn.get_backend("jax")
    assert backend.is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"))
    assert not backend.is_out_of_memory(RuntimeError("other"))


def test_jax_tells_how_it_runs_steps() -> None:
    _here("jax", "portablenn_jax")
    assert _net("jax").fit(X, Y).how == "jax on cpu:0: one scan"


@pytest.mark.parametrize("name", ["jax:cpu", "jax:cpu:0", "jax"])
def test_jax_has_its_devices_by_name(name: str) -> None:
    _here("jax")
    assert pnn.get_backend(name).full_name == "jax:cpu:0"


@pytest.mark.parametrize("name", ["jax:cpu:9", "jax:cuda", "jax:cuda:0", "jax:gpu:0", "torch:cpu:x", "torch:cuda:9"])
def test_a_device_that_is_not_there_is_an_error_with_its_name(name: str) -> None:
    library, _, device = name.partition(":")
    _here(library)
    infos = [info for info in pnn.backends() if info.name == library]
    if any(d.startswith(device.replace("gpu", "cuda")) for info in infos for d in info.devices):
        pytest.skip(f"this machine has {name}")
    with pytest.raises(pnn.BackendError, match=f"backend '{name}' cannot be used: "):
        pnn.get_backend(name)


def test_gpus_of_jax_are_found_by_any_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    _here("jax")
    import jax

    from portablenn.runtime.registry import _device

    asked: list[str] = []
    monkeypatch.setattr(jax, "devices", lambda kind: asked.append(kind) or ["first", "second"])
    assert [_device(jax, name) for name in ("cuda", "gpu:0", "cuda:1")] == ["first", "first", "second"]
    assert asked == ["cuda", "gpu", "cuda"]


def test_what_a_fit_held_is_free_when_it_returns(library: Any) -> None:
    """Not only when the collector of circles comes by: until then each fit would hold its own copy of the data."""
    X, y = library.array(np.eye(4), "float64"), library.array([0, 1, 1, 0])
    net = pnn.mlp([4, 3, 2], loss="softmax_cross_entropy", dtype="float64")

    def work() -> None:
        net.fit(X, y)
        net.predict(X)
        net.evaluate(X, y)

    work()  # which records and compiles
    gc.collect()
    gc.disable()
    try:
        work()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_network_can_be_made_inside_jaxs_tracing() -> None:
    jax = pytest.importorskip("jax")

    def traced(x: Any) -> Any:
        net = pnn.mlp([3, 4, 2], backend="jax")
        return net.backend.asarray(np.ones(3, dtype=np.float32)) + x + float(net.outputs)

    assert jax.jit(traced)(np.zeros(3, dtype=np.float32)).tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", NAMES)
def test_numbers_in_a_foreign_byte_order_are_the_same_numbers(name: str) -> None:
    _here(name)
    losses = []
    for dtype in ("<f8", ">f8"):
        net = pnn.mlp([4, 5, 3], loss="softmax_cross_entropy", dtype="float64", backend=name)
        losses.append(net.fit(X.astype(dtype), Y, epochs=2)["loss"])
    assert losses[0] == losses[1]
