"""grad, value_and_grad, compile: structures, libraries, the cache, and what they refuse."""

from __future__ import annotations

import threading
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn
from portablenn.transforms.compile import compile_for, compile_loop_for

Point = namedtuple("Point", ["x", "y"])


@dataclass(frozen=True)
class Key:
    number: int


def _loss(parameters: dict[str, Any], x: Any) -> Any:
    xp = pnn.array_namespace(x)
    return xp.mean(xp.tanh(x @ parameters["w"] + parameters["b"]) ** 2)


def test_gradients_come_in_the_structure_of_the_argument(library: Any) -> None:
    parameters = {"w": library.array(np.full((3, 2), 0.5)), "b": library.array(np.zeros(2))}
    value, gradients = pnn.value_and_grad(_loss)(parameters, library.array(np.ones((4, 3))))
    assert set(gradients) == {"w", "b"}
    assert tuple(gradients["w"].shape) == (3, 2)
    np.testing.assert_allclose(float(value), np.tanh(1.5) ** 2, rtol=1e-12)
    slope = 2 * np.tanh(1.5) * (1 - np.tanh(1.5) ** 2) / 2
    np.testing.assert_allclose(library.numpy(gradients["b"]), [slope, slope], rtol=1e-12)


def test_results_are_arrays_of_the_callers_library_and_device(library: Any) -> None:
    x = library.array([1.0, 2.0])
    for result in (pnn.grad(lambda x: pnn.xp.sum(x * x))(x), pnn.compile(lambda x: x + 1.0)(x)):
        assert type(result) is type(x)
        assert pnn.array_namespace(result) is pnn.array_namespace(x)
        assert result.device == x.device


def test_several_arguments_and_keywords() -> None:
    def function(a: Any, b: Any, *, scale: Any) -> Any:
        return pnn.xp.sum(a * b * scale)

    one, two = np.asarray([1.0, 2.0]), np.asarray([3.0, 5.0])
    first, second = pnn.grad(function, argnums=(1, 0))(one, two, scale=np.asarray(2.0))
    assert (first.tolist(), second.tolist()) == ([2.0, 4.0], [6.0, 10.0])
    assert pnn.grad(function, argnums=-1)(one, two, scale=np.asarray(1.0)).tolist() == [1.0, 2.0]


def test_nested_structures_go_in_and_come_out() -> None:
    def function(tree: Any) -> Any:
        return {"sum": tree["a"][0] + tree["a"][1].x, "pair": (tree["a"][1].y, [tree["b"]]), 3: tree["b"] * 2.0}

    tree = {"a": (np.ones(2), Point(np.asarray([2.0, 3.0]), np.zeros(1))), "b": np.asarray(4.0)}
    result = pnn.compile(function)(tree)
    assert result["sum"].tolist() == [3.0, 4.0]
    assert result["pair"][1][0] == 4.0
    assert result[3] == 8.0
    gradient = pnn.grad(lambda t: pnn.xp.sum(t["a"][1].x ** 2))(tree)
    assert isinstance(gradient["a"][1], Point)
    assert gradient["a"][1].x.tolist() == [4.0, 6.0]


def test_the_rest_of_a_result_is_passed_on() -> None:
    (value, rest), gradient = pnn.value_and_grad(lambda x: (pnn.xp.sum(x * x), {"twice": x * 2.0}), has_aux=True)(
        np.ones(2)
    )
    assert (float(value), rest["twice"].tolist(), gradient.tolist()) == (2.0, [2.0, 2.0], [2.0, 2.0])


def test_the_rest_of_a_result_may_be_anything() -> None:
    tag = object()

    def function(x: Any) -> Any:
        return pnn.xp.sum(x * x), ["text", None, x * 2.0, (tag, 3), {}]

    both = pnn.value_and_grad(function, has_aux=True)
    for _ in range(2):
        (value, rest), gradient = both(np.ones(2))
        assert (float(value), gradient.tolist()) == (2.0, [2.0, 2.0])
        assert (rest[0], rest[1], rest[2].tolist(), rest[3][0], rest[3][1], rest[4]) == (
            "text", None, [2.0, 2.0], tag, 3, {}
        )  # fmt: skip
    assert pnn.value_and_grad(lambda x: (pnn.xp.sum(x), None), has_aux=True)(np.ones(2))[0][1] is None


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: pnn.xp.sum(x), r"must return \(scalar, rest\)"),
        (lambda x: [pnn.xp.sum(x), x], r"must return \(scalar, rest\)"),
        (lambda x: (pnn.xp.sum(x), x, x), r"must return \(scalar, rest\)"),
        (lambda x: (None, x), "one scalar"),
        (lambda x: ("text", x), "got str: 'text'"),
        (lambda x: ((pnn.xp.sum(x), x), x), "one scalar"),
    ],
)
def test_with_has_aux_a_function_returns_a_pair(function: Any, says: str) -> None:
    with pytest.raises(pnn.NotDifferentiableError, match=says):
        pnn.value_and_grad(function, has_aux=True)(np.ones(2))


def test_none_among_arrays_is_an_empty_tree() -> None:
    both = pnn.value_and_grad(lambda tree: pnn.xp.sum(tree["w"]))({"w": np.ones(2), "bias": None})
    assert both[1]["bias"] is None
    assert pnn.compile(lambda x: [x, None])(np.ones(1))[1] is None


def test_an_ordered_dict_stays_one_in_its_order() -> None:
    tree = OrderedDict([("b", np.ones(1)), ("a", np.ones(2))])
    gradient = pnn.grad(lambda t: pnn.xp.sum(t["b"]) + pnn.xp.sum(t["a"] * 2.0))(tree)
    assert type(gradient) is OrderedDict
    assert [(name, g.tolist()) for name, g in gradient.items()] == [("b", [1.0]), ("a", [2.0, 2.0])]


def test_jit_is_compile() -> None:
    assert pnn.jit is pnn.compile


def test_compile_for_takes_trees_with_none_and_shares_by_key() -> None:
    traced: list[str] = []

    def shifted(tree: Any, weights: Any) -> Any:
        traced.append("shifted")
        return {"x": tree["x"] + 1.0, "weights": weights}

    key = Key(1)
    for weights in (None, np.ones(1), None):
        run = compile_for(pnn.get_backend("numpy"), shifted, key, {"x": np.zeros(2), "y": None}, weights)
        result = run({"x": np.ones(2), "y": None}, weights)
        assert result["x"].tolist() == [2.0, 2.0]
        assert (result["weights"] is None) == (weights is None)
    compile_for(pnn.get_backend("numpy"), shifted, Key(1), {"x": np.zeros(2), "y": None}, None)
    assert len(traced) == 2
    compile_for(pnn.get_backend("numpy"), shifted, Key(2), {"x": np.zeros(2), "y": None}, None)
    compile_for(pnn.get_backend("numpy"), shifted, [key], {"x": np.zeros(2), "y": None}, None)
    assert len(traced) == 4


def test_compile_loop_for_carries_a_tree_and_collects_another(library: Any) -> None:
    def step(iteration: Any, carry: Any, data: Any, nothing: None) -> Any:
        xp = pnn.array_namespace(data)
        assert nothing is None
        return {"sum": carry["sum"] + data, "none": None}, (carry["sum"], [xp.astype(iteration, xp.float64)])

    carry, data = {"sum": library.array([1.0, 2.0]), "none": None}, library.array(2.0)
    run = compile_loop_for(library.backend, step, Key(3), carry, data, None)
    after, (sums, [iterations]) = run(3, carry, data, None)
    assert library.numpy(after["sum"]).tolist() == [7.0, 8.0]
    assert after["none"] is None
    assert library.numpy(sums).tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    assert library.numpy(iterations).tolist() == [0.0, 1.0, 2.0]


def test_arguments_that_are_not_arrays_are_static() -> None:
    calls: list[Any] = []

    def function(x: Any, power: int, mode: str | None) -> Any:
        calls.append(power)
        return x**power if mode is None else -x

    compiled = pnn.compile(function)
    x = np.asarray([3.0])
    assert compiled(x, 2, None).tolist() == [9.0]
    assert compiled(x, 3, None).tolist() == [27.0]
    assert compiled(x, 2, "minus").tolist() == [-3.0]
    assert compiled(x, 2, None).tolist() == [9.0]
    assert calls == [2, 3, 2]


def test_one_and_true_and_one_point_zero_are_different_statics() -> None:
    compiled = pnn.compile(lambda x, n: x + {int: 10.0, bool: 20.0, float: 30.0}[type(n)])
    assert [float(compiled(np.asarray(0.0), n)) for n in (1, True, 1.0, 1)] == [10.0, 20.0, 30.0, 10.0]


def test_a_function_is_traced_once_for_each_shape_and_dtype() -> None:
    traces: list[Any] = []

    def function(x: Any) -> Any:
        traces.append((x.shape, str(x.dtype)))
        return x * 2.0

    compiled = pnn.compile(function)
    for x in (np.ones(2), np.zeros(2), np.ones(3), np.ones(2, dtype=np.float32), np.ones(2)):
        compiled(x)
    assert traces == [((2,), "float64"), ((3,), "float64"), ((2,), "float32")]
    info = pnn.program_cache.info()
    assert (info.hits, info.misses, info.size) == (2, 3, 3)


def test_the_cache_has_a_bound_and_can_be_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pnn.program_cache, "maxsize", 2)
    compiled = pnn.compile(lambda x: x + 1.0)
    for n in range(1, 6):
        compiled(np.ones(n))
    assert pnn.program_cache.info().size == 2
    pnn.program_cache.clear()
    assert pnn.program_cache.info() == type(pnn.program_cache.info())(0, 0, 0, 2)


def test_a_failing_function_leaves_nothing_in_the_cache() -> None:
    with pytest.raises(pnn.TracerValueError):
        pnn.compile(lambda x: float(x))(np.asarray(1.0))
    assert pnn.program_cache.info().size == 0


def test_equal_networks_share_their_programs() -> None:
    X, y = np.ones((8, 3), dtype=np.float32), np.zeros(8, dtype=int)
    for seed in range(5):
        net = pnn.mlp([3, 4, 2], loss="softmax_cross_entropy", seed=seed)
        net.fit(X, y, epochs=1, batch_size=4)
    assert pnn.program_cache.info().misses == 1


def test_unhashable_functions_and_statics_are_known_by_identity() -> None:
    class Scaler:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, x: Any, table: Any) -> Any:
            return x * 3.0

        def __eq__(self, other: object) -> bool:
            return True

    class Table:
        __hash__ = None  # type: ignore[assignment]

    assert pnn.compile(Scaler())(np.asarray(2.0), Table()) == 6.0


def test_arrays_a_function_uses_without_taking_them_are_constants() -> None:
    w = np.asarray([2.0, 3.0])
    assert pnn.grad(lambda x: pnn.xp.sum(x * w))(np.ones(2)).tolist() == [2.0, 3.0]


def test_threads_may_compile_the_same_function_at_once() -> None:
    compiled = pnn.compile(lambda x: pnn.xp.sum(pnn.xp.tanh(x)))
    results: list[float] = []
    threads = [threading.Thread(target=lambda: results.append(float(compiled(np.ones(50))))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [float(np.tanh(1.0) * 50)] * 8 or np.allclose(results, np.tanh(1.0) * 50)
    assert len(results) == 8


def test_mixed_libraries_are_an_error(other_library: Any) -> None:
    with pytest.raises(TypeError, match="different libraries"):
        pnn.compile(lambda a, b: a + b)(np.ones(2), other_library.array(np.ones(2)))
    constant = np.ones(2)
    with pytest.raises(TypeError, match="numpy that is not an argument"):
        pnn.compile(lambda a: a * constant)(other_library.array(np.ones(2)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pnn.compile(lambda x: x)(3.0), "without an array"),
        (lambda: pnn.grad(lambda x, y: x * y)(3, np.asarray(1.0)), "argument 0 holds 3, an int.*write 3.0"),
        (lambda: pnn.grad(lambda x, y: x * y)("a", np.asarray(1.0)), "argument 0 holds 'a', a str"),
        (
            lambda: pnn.grad(lambda x: x, argnums=1)(np.asarray(1.0)),
            "argnums=1 requires more positional arguments, got 1",
        ),
        (lambda: pnn.grad(lambda x: (x, x))(np.asarray(1.0)), "must return one scalar"),
        (lambda: pnn.grad(lambda x: "text")(np.asarray(1.0)), "expected an array or a Python scalar.*text"),
        (lambda: pnn.grad("not a function"), "expected a function, got str"),
        (lambda: pnn.array_namespace([1, 2]), "expected at least one array, got list"),
    ],
)
def test_wrong_calls_say_what_is_wrong(call: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


def test_the_program_of_a_call_can_be_inspected() -> None:
    program = pnn.compile(pnn.grad(lambda x: pnn.xp.sum(x * x))).program(np.ones(3))
    assert "add" in str(program)
    assert program.outputs[0].type.shape == (3,)


def test_xp_follows_the_backend_in_use(other_library: Any) -> None:
    with pnn.use_backend(other_library.name) as backend:
        assert pnn.array_namespace(pnn.xp.asarray([1.0])) is backend.xp
    assert pnn.array_namespace(pnn.xp.asarray([1.0])) is pnn.get_backend().xp


@pytest.mark.parametrize("name", ["no_such_library", "json", "numpy:7"])
def test_an_unusable_backend_says_why(name: str) -> None:
    with pytest.raises(pnn.BackendError, match=r"cannot be imported|does not follow|expected the device"):
        pnn.get_backend(name)


def test_the_environment_names_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTABLENN_BACKEND", "array_api_strict")
    assert pnn.get_backend().name == "array_api_strict"
    monkeypatch.setenv("PORTABLENN_BACKEND", "")
    assert pnn.get_backend().name == "numpy"


def test_equal_statics_of_different_types_are_different_programs() -> None:
    inverse = pnn.compile(lambda x, s: 1.0 / (x * s))
    with np.errstate(divide="ignore"):
        assert [float(inverse(np.ones(1), s)[0]) for s in (0.0, -0.0)] == [np.inf, -np.inf]
    same = pnn.compile(lambda tree: tree)
    assert [type(key) for key in (*same({1: np.ones(1)}), *same({True: np.ones(1)}))] == [int, bool]


def test_captured_arrays_are_read_at_each_call() -> None:
    w = np.ones(3)
    compiled = pnn.compile(lambda x: (x + w, x + 2.0 * w, x + w[::-1]))
    compiled(np.zeros(3))
    w[:] = [5.0, 5.0, 6.0]
    assert [r.tolist() for r in compiled(np.zeros(3))] == [[5.0, 5.0, 6.0], [10.0, 10.0, 12.0], [6.0, 5.0, 5.0]]
    w = np.full(3, 7.0)
    assert compiled(np.zeros(3))[1].tolist() == [14.0] * 3


def test_using_a_tracer_of_an_earlier_trace_is_an_error() -> None:
    kept: list[Any] = []
    pnn.compile(lambda x: kept.append(x * 2.0) or x)(np.ones(2))
    with pytest.raises(pnn.TracerValueError, match="kept from an earlier trace"):
        pnn.compile(lambda x: x + kept[0])(np.ones(2))


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: x.exp(), r"no method exp\(\).*xp.exp\(x"),
        (lambda x: x.tril(), r"no method tril\(\)"),
        (lambda x: x.nothing, "no attribute 'nothing'"),
        (lambda x: x * [1, 2, 3, 4], r"multiply of a traced array and a list.*xp.asarray"),
        (lambda x: f"{x[0]:.2f}", "a format with digits"),
        (lambda x: __import__("math").sin(x[0]), "xp's functions in place of math's"),
        (lambda x: x[1.7], "an index is an integer.*got 1.7"),
        (lambda x: x["1"], "an index is an integer.*got '1'"),
        (lambda x: pnn.xp.tensordot(pnn.xp.reshape(x, (2, 2)), x, axes=1), "tensordot.*differ"),
    ],
)
def test_errors_for_common_mistakes_say_what_to_write(function: Any, says: str) -> None:
    with raises((TypeError, AttributeError, IndexError, ValueError), says):
        pnn.compile(function)(np.arange(4.0))


def test_other_libraries_functions_say_what_to_use() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(pnn.NotTraceableError, match="sin cannot be traced"):
        pnn.compile(lambda x: torch.sin(x))(np.ones(2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pnn.grad(lambda x: pnn.xp.sum(x**2))(np.arange(3)), "argument 0 .* is int64"),
        (lambda: pnn.grad(lambda x: x, np.ones(2)), "argnums must be an integer"),
        (lambda: pnn.trace(lambda x: x, {"w": 1}), "trace takes an ArrayType"),
    ],
)
def test_wrong_uses_of_a_transform_are_errors(call: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        call()


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda xp, x: xp.sum(x, dtype=xp.int32), "int32"),
        (lambda xp, x: xp.prod(x, dtype=xp.int32), "int32"),
        (lambda xp, x: xp.cumulative_sum(x, dtype=xp.int32), "int32"),
        (lambda xp, x: xp.vecdot(x, x), "int32"),
        (lambda xp, x: xp.sum(x), "int64"),
    ],
)
def test_an_integer_sum_has_the_dtype_that_was_asked_for(function: Any, dtype: str, library: Any) -> None:
    compiled = pnn.compile(lambda x: function(pnn.array_namespace(x), x))
    result = compiled(library.array(np.arange(4, dtype=np.int32)))
    assert dtype in str(result.dtype)
