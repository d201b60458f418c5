"""Activations, losses, optimizers, schedules, initializers and layers against their textbook formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import portablenn as pnn
from portablenn import activations, initializers, losses, optimizers, random, schedules
from portablenn.nn.layers import BatchNorm, Dense, Dropout

Z = np.asarray([[-3.0, -0.5, 0.0], [0.25, 2.0, 40.0]])


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _coslog(part: float) -> float:
    return 0.5 * (1 - math.cos(2 * math.pi * math.log2(1 + 15 * part)))


ACTIVATIONS = {
    "identity": lambda z: z,
    "step": lambda z: (z >= 0) * 1.0,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda z: np.where(z > 0, z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "selu": lambda z: (
        1.0507009873554804934193349852946
        * np.where(z > 0, z, 1.6732632423543772848170429916717 * (np.exp(np.minimum(z, 0)) - 1))
    ),
    "mish": lambda z: z * np.tanh(np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0)),
    "gelu": lambda z: 0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
    "silu": lambda z: z * _sigmoid(z),
    "softplus": lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0),
    "softmax": lambda z: (
        np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)
    ),
}


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activation_is_its_formula(name: str, library: Any) -> None:
    result = activations.get(name)(library.array(Z))
    np.testing.assert_allclose(library.numpy(result), ACTIVATIONS[name](Z), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", [n for n in activations.ACTIVATIONS if n != "step"])
@pytest.mark.parametrize("scale", [1e3, 1e12])
def test_activation_and_gradient_are_finite_far_out(name: str, scale: float) -> None:
    z = np.asarray([[-scale, scale, 1.0]], dtype=np.float32)
    value, gradient = pnn.value_and_grad(lambda x: pnn.xp.sum(activations.get(name)(x)))(z)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_the_gradient_of_relu_is_zero_at_zero() -> None:
    assert pnn.grad(lambda x: pnn.xp.sum(activations.relu(x)))(np.zeros(1)).tolist() == [0.0]


P = np.asarray([[0.5, -1.0, 2.0], [3.0, 0.25, -0.5]])
T = np.asarray([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
C = np.asarray([0, 1])
S = 2 * T - 1
LOG_SOFTMAX = P - np.log(np.exp(P).sum(1, keepdims=True))
ROWS = {
    "squared_error": ((P - T) ** 2).sum(1),
    "half_squared_error": 0.5 * ((P - T) ** 2).sum(1),
    "absolute_error": np.abs(P - T).sum(1),
    "huber": np.where(np.abs(P - T) <= 1, 0.5 * (P - T) ** 2, np.abs(P - T) - 0.5).sum(1),
    "poisson": (np.exp(P) - T * P).sum(1),
    "sigmoid_cross_entropy": -(T * np.log(_sigmoid(P)) + (1 - T) * np.log(1 - _sigmoid(P))).sum(1),
    "softmax_cross_entropy": -(T * LOG_SOFTMAX).sum(1),
    "hinge": np.maximum(0, 1 - S * P).sum(1),
    "perceptron": np.maximum(0, -S * P).sum(1),
}


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_is_its_formula(name: str, reduction: str, library: Any) -> None:
    loss = losses.LOSSES[name](reduction=reduction)
    weights = np.asarray([1.0, 3.0])
    plain, weighted = ROWS[name].sum(), (ROWS[name] * weights).sum()
    if reduction == "mean":
        plain, weighted = plain / 2, weighted / 4
    p, t, w = map(library.array, (P, T, weights))
    assert float(loss(p, t)) == pytest.approx(plain, rel=1e-12)
    assert float(loss(p, t, w)) == pytest.approx(weighted, rel=1e-12)


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "softmax_cross_entropy", "hinge", "perceptron"])
def test_class_numbers_mean_the_same_as_one_hot_rows(name: str, library: Any) -> None:
    loss = losses.get(name)
    expected = float(loss(library.array(P), library.array(T)))
    assert float(loss(library.array(P), library.array(C))) == pytest.approx(expected, rel=1e-14)


def test_class_numbers_may_have_any_integer_dtype() -> None:
    def gradient(classes: np.ndarray) -> np.ndarray:
        return pnn.grad(lambda p, c: losses.SoftmaxCrossEntropy()(p, c))(P, classes)

    for dtype in ("int8", "uint8", "int32", "uint64"):
        np.testing.assert_array_equal(gradient(C.astype(dtype)), gradient(C))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_gradient_of_a_loss_is_the_limit_of_differences(name: str) -> None:
    loss, weights = losses.get(name), np.asarray([1.0, 3.0])
    predictions = P + 0.03  # off the kinks
    gradient = pnn.grad(lambda p: loss(p, T, weights))(predictions)
    for index in np.ndindex(P.shape):
        up, down = predictions.copy(), predictions.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        slope = (float(loss(up, T, weights)) - float(loss(down, T, weights))) / 2e-6
        assert gradient[index] == pytest.approx(slope, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "softmax_cross_entropy"])
def test_cross_entropy_of_huge_logits_is_finite(name: str) -> None:
    p = np.asarray([[1e4, -1e4, 0.0]], dtype=np.float32)
    value, gradient = pnn.value_and_grad(lambda x: losses.get(name)(x, np.asarray([1])))(p)
    assert np.isfinite(value)
    assert value >= 1e4
    assert np.isfinite(gradient).all()


def test_the_perceptron_learns_from_zero_weights() -> None:
    gradient = pnn.grad(lambda p: losses.Perceptron()(p, np.asarray([[1.0]])))(np.zeros((1, 1)))
    assert gradient.tolist() == [[-1.0]]


def test_a_loss_names_the_kind_of_its_targets() -> None:
    kinds = {name: losses.get(name).targets for name in losses.LOSSES}
    classes = ("sigmoid_cross_entropy", "softmax_cross_entropy", "hinge", "perceptron")
    assert kinds == {**dict.fromkeys(kinds, "values"), "poisson": "counts", **dict.fromkeys(classes, "classes")}


@pytest.mark.parametrize(("second", "name"), [("mse", "squared_error"), ("mae", "absolute_error")])
def test_a_familiar_name_is_the_same_loss(second: str, name: str) -> None:
    assert losses.get(second) == losses.get(name)


@pytest.mark.parametrize(
    ("name", "formula"), [("sigmoid_cross_entropy", _sigmoid), ("poisson", np.exp), ("squared_error", lambda p: p)]
)
def test_the_link_of_a_loss_is_its_formula(name: str, formula: Any, library: Any) -> None:
    p = np.asarray([[-40.0, -1.0, 0.0, 0.5, 30.0]])
    np.testing.assert_allclose(library.numpy(losses.get(name).link(library.array(p))), formula(p), rtol=1e-12)


def test_a_function_is_a_loss() -> None:
    per_row = losses.get(lambda p, t: pnn.array_namespace(p).sum((p - t) ** 4, axis=1))
    assert float(per_row(P, T)) == pytest.approx(((P - T) ** 4).sum() / 2)
    per_output = losses.get(lambda p, t: (p - t) ** 4)
    assert float(per_output(P, T)) == pytest.approx(((P - T) ** 4).sum() / 2)
    whole = losses.get(lambda p, t: pnn.array_namespace(p).mean((p - t) ** 4))
    assert float(whole(P, T)) == pytest.approx(((P - T) ** 4).mean())
    with pytest.raises(ValueError, match=r"shape \(rows,\)"):
        whole(P, T, np.ones(2))


def test_a_loss_of_shapes_that_would_broadcast_is_refused() -> None:
    p, t = np.arange(8.0)[:, None], np.ones((8, 1))
    with pytest.raises(
        ValueError,
        match=r"the loss returned shape \(8, 8\) for predictions \(8, 1\) and targets \(8, 1\): .*\(8,\) and \(8, 1\) broadcast",
    ):
        losses.get(lambda p, t: (p[:, 0] - t) ** 2)(p, t)
    with pytest.raises(ValueError, match=r"expected targets of the predictions' shape, \(8, 1\), got \(8,\)"):
        losses.get("squared_error")(p, t[:, 0])
    with pytest.raises(ValueError, match=r"\(8, 1\), or class numbers of shape \(8,\), got \(8, 2\)"):
        losses.get("hinge")(p, np.ones((8, 2)))
    with pytest.raises(ValueError, match=r"expected predictions of shape \(rows, outputs\), got \(8,\)"):
        losses.get(lambda p, t: p - t)(p[:, 0], t)
    with pytest.raises(ValueError, match=r"expected weights of shape \(8,\), one for each row, got \(8, 1\)"):
        losses.get("squared_error")(p, t, t)
    with pytest.raises(TypeError, match="expected a loss function that returns an array, got float"):
        losses.get(lambda p, t: 0.0)(p, t)


def test_a_users_loss_that_broadcasts_is_refused_before_a_step(on_numpy: None) -> None:
    net = pnn.mlp([2, 1], loss=lambda p, t: (p[:, 0] - t) ** 2)
    before = net.state.theta.copy()
    with pytest.raises(ValueError, match=r"the loss returned shape \(8, 8\)"):
        net.fit(np.ones((8, 2)), np.arange(8.0))
    np.testing.assert_array_equal(net.state.theta, before)


def _reference(optimizer: Any, theta: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Each optimizer, written down once more as its paper has it."""
    o, theta = optimizer, theta.copy()
    v, s = np.zeros_like(theta), np.zeros_like(theta)
    kernels = np.asarray([1.0, 1.0, 0.0, 0.0])
    for t, g in enumerate(gradients, 1):
        rate = o.learning_rate(np.asarray(t - 1.0)) if callable(o.learning_rate) else o.learning_rate
        g = g + o.l2 * theta * kernels + o.l1 * np.sign(theta * kernels)
        if o.clip_value is not None:
            g = np.clip(g, -o.clip_value, o.clip_value)
        if o.clip_norm is not None and np.linalg.norm(g) > o.clip_norm:
            g = g * o.clip_norm / np.linalg.norm(g)
        shrink = rate * o.weight_decay * theta * kernels
        if isinstance(o, optimizers.SGD):
            v = o.momentum * v - rate * g
            change = o.momentum * v - rate * g if o.nesterov else v
        elif isinstance(o, optimizers.Adagrad):
            s = s + g**2
            change = -rate * g / (np.sqrt(s) + o.epsilon)
        elif isinstance(o, optimizers.RMSprop):
            s = o.decay * s + (1 - o.decay) * g**2
            change = -rate * g / (np.sqrt(s) + o.epsilon)
        else:
            v = o.beta_1 * v + (1 - o.beta_1) * g
            s = o.beta_2 * s + (1 - o.beta_2) * g**2
            change = -rate * (v / (1 - o.beta_1**t)) / (np.sqrt(s / (1 - o.beta_2**t)) + o.epsilon)
        theta = theta + change - shrink
    return theta


OPTIMIZERS = [
    pnn.SGD(0.1),
    pnn.SGD(0.1, momentum=0.9),
    pnn.SGD(0.1, momentum=0.9, nesterov=True),
    pnn.SGD(schedules.InverseTimeDecay(0.1, 0.5), weight_decay=0.1),
    pnn.Adagrad(0.1),
    pnn.RMSprop(0.01, l1=0.01),
    pnn.Adam(0.01),
    pnn.Adam(0.01, l2=0.1, clip_norm=0.5),
    pnn.Adam(0.01, clip_value=0.2),
    pnn.AdamW(0.01, weight_decay=0.1),
    pnn.AdamW(schedules.CosineDecay(0.01, 10), weight_decay=0.1),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizer_follows_its_paper(optimizer: Any, library: Any) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=4), [rng.normal(size=4) for _ in range(6)]
    theta = library.array(start)
    slots = tuple(library.array(np.zeros(4)) for _ in optimizer.slots)
    for t, g in enumerate(gradients):
        step = library.array(np.asarray(float(t)))
        kernels = library.array([1.0, 1.0, 0.0, 0.0])
        theta, slots = optimizer.update(library.xp, theta, library.array(g), slots, step, kernels)
    np.testing.assert_allclose(library.numpy(theta), _reference(optimizer, start, gradients), rtol=1e-12)


@pytest.mark.parametrize(("l1", "l2"), [(0.5, 0.0), (0.0, 0.25), (0.5, 0.25)])
def test_the_penalty_is_its_formula(l1: float, l2: float, library: Any) -> None:
    optimizer, theta = pnn.SGD(l1=l1, l2=l2), library.array([1.0, -2.0, 3.0, -4.0])
    kernels = library.array([1.0, 1.0, 0.0, 0.0])
    assert float(optimizer.penalty(library.xp, theta, kernels)) == l1 * 3.0 + 0.5 * l2 * 5.0
    assert float(optimizer.penalty(library.xp, theta, None)) == l1 * 10.0 + 0.5 * l2 * 30.0


DEFAULTS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.01, "momentum": 0.0, "nesterov": False},
    "adagrad": {"learning_rate": 0.01, "epsilon": 1e-8},
    "rmsprop": {"learning_rate": 0.001, "decay": 0.9, "epsilon": 1e-8},
    "adam": {"learning_rate": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "epsilon_hat": False},
    "lbfgs": {"learning_rate": 1.0, "memory": 10, "tolerance": 1e-6, "max_evaluations": 20, "budget": None},
}
DEFAULTS["adamw"] = {**DEFAULTS["adam"], "weight_decay": 0.01}
OF_ALL = {"l1": 0.0, "l2": 0.0, "weight_decay": 0.0, "clip_norm": None, "clip_value": None, "penalty_per_row": False}


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_an_optimizer_has_its_defaults(name: str) -> None:
    assert vars(optimizers.get(name)) == {**OF_ALL, **DEFAULTS[name]}


def test_slots_have_the_names_that_files_hold() -> None:
    slots = {name: optimizers.get(name).slots for name in optimizers.OPTIMIZERS}
    adam = ("mean", "squares")
    assert slots == {
        "sgd": (), "adagrad": ("squares",), "rmsprop": ("squares",), "adam": adam, "adamw": adam, "lbfgs": (),
    }  # fmt: skip
    assert pnn.SGD(momentum=0.9).slots == ("velocity",)


def test_an_optimizer_without_a_direction_raises() -> None:
    with pytest.raises(NotImplementedError):
        optimizers.Optimizer().update(np, np.ones(1), np.ones(1), (), np.asarray(0.0))


def test_optimizers_take_numbers_of_numpy() -> None:
    made = pnn.Adam(np.float32(0.5), np.float64(0.25), l2=np.float64(0.125))
    assert made == pnn.Adam(0.5, 0.25, l2=0.125)
    assert {type(value) for value in (made.learning_rate, made.beta_1, made.l2)} == {float}


def test_schedules_take_numbers_of_numpy() -> None:
    made = schedules.ExponentialDecay(np.float32(0.5), np.float64(0.25), np.int64(10))
    assert made == schedules.ExponentialDecay(0.5, 0.25, 10)
    assert [type(value) for value in (made.start, made.factor, made.steps)] == [float, float, int]


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (schedules.ExponentialDecay(1.0, 0.5, 10), {0: 1.0, 10: 0.5, 20: 0.25, 5: math.sqrt(0.5)}),
        (schedules.InverseTimeDecay(1.0, 0.1), {0: 1.0, 10: 0.5, 30: 0.25}),
        (schedules.CosineDecay(1.0, 100, 0.1), {0: 1.0, 50: 0.55, 100: 0.1, 200: 0.1}),
        (
            schedules.CosLog(1.0, 15),
            {0: 0.0, 1: 0.0, 3: 0.0, 7: 0.0, 15: 0.0, 99: 0.0, 2: _coslog(2 / 15), 9: _coslog(0.6)},
        ),
        (schedules.StepDecay(1.0, 0.5, 10), {0: 1.0, 9: 1.0, 10: 0.5, 19: 0.5, 20: 0.25}),
        (schedules.WarmUp(10, 2.0), {0: 0.2, 4: 1.0, 9: 2.0, 50: 2.0}),
        (schedules.WarmUp(2, schedules.InverseTimeDecay(1.0, 1.0)), {0: 0.5, 1: 0.5, 3: 0.25}),
    ],
)
def test_schedule_has_its_values(schedule: Any, points: dict[int, float], library: Any) -> None:
    for step, value in points.items():
        assert float(schedule(library.array(np.asarray(float(step))))) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", initializers.INITIALIZERS)
def test_initializer_has_its_mean_and_variance(name: str) -> None:
    inputs, outputs = 400, 300
    w = initializers.initial(name, random.new_key(0, random.WEIGHTS), (inputs, outputs))
    variance = {
        "zeros": 0.0, "ones": 0.0, "uniform": 0.1**2 / 12, "normal": 0.05**2, "glorot": 2 / (inputs + outputs),
        "he": 2 / inputs, "lecun": 1 / inputs,
    }[name if name in ("zeros", "ones", "uniform", "normal") else name.partition("_")[0]]  # fmt: skip
    assert w.mean() == pytest.approx(1.0 if name == "ones" else 0.0, abs=1e-3)
    assert w.var() == pytest.approx(variance, rel=0.02)


def test_an_array_or_a_function_initializes() -> None:
    key = random.new_key(0, random.WEIGHTS)
    assert initializers.initial([[1.0], [2.0]], key, (2, 1)).tolist() == [[1.0], [2.0]]
    assert initializers.initial(lambda key, shape: np.full(shape, 3.0), key, (2,)).tolist() == [3.0, 3.0]
    with pytest.raises(ValueError, match=r"expected initial values of shape \(2, 1\) for the kernel, got \(3,\)"):
        initializers.initial(np.zeros(3), key, (2, 1), "the kernel")


def test_dense_is_its_formula(library: Any) -> None:
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(5, 3)), rng.normal(size=(3, 2)), rng.normal(size=2)
    params = {"kernel": library.array(w), "bias": library.array(b)}
    result = Dense(2, "tanh").apply(library.xp, params, library.array(x))
    np.testing.assert_allclose(library.numpy(result), np.tanh(x @ w + b), rtol=1e-12)


def test_dropout_scales_what_it_keeps_and_leaves_prediction_alone(library: Any) -> None:
    x = library.array(np.ones((200, 50)))
    key, step = library.array(random.new_key(0, random.MASKS)), library.array(np.asarray(0, dtype=np.int32))
    layer = Dropout(0.25)
    dropped = library.numpy(layer.apply(library.xp, {}, x, training=True, random=random.Stream(key, step)))
    assert set(np.unique(dropped)) == {0.0, 1 / 0.75}
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    assert layer.apply(library.xp, {}, x) is x


def test_layers_for_tables_are_their_formulas(library: Any) -> None:
    x, random_ = np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1)
    kernel, bias, scale = random_.normal(size=(4, 3)), random_.normal(size=3), random_.normal(size=4)
    dense = pnn.NTKDense(3, "tanh", bias_rate=0.25)
    params = {"kernel": library.array(kernel), "bias": library.array(bias)}
    y = library.numpy(dense.apply(library.xp, params, library.array(x)))
    np.testing.assert_allclose(y, np.tanh(x @ kernel / 2 + bias / 4), rtol=1e-12)
    same, own = dense.as_dense(params)
    np.testing.assert_allclose(library.numpy(same.apply(library.xp, own, library.array(x))), y, rtol=1e-12)
    y = library.numpy(pnn.Scale(6.0).apply(library.xp, {"scale": library.array(scale)}, library.array(x)))
    np.testing.assert_allclose(y, x * scale * 6, rtol=1e-12)


def test_layers_for_tables_begin_with_variance_1_whatever_their_rates() -> None:
    initial = pnn.NTKDense(300, bias_rate=0.1).init(random.new_key(0, random.WEIGHTS), 400)
    assert initial["kernel"].std() == pytest.approx(1.0, abs=0.01)
    assert (initial["bias"] * 0.1).std() == pytest.approx(1.0, abs=0.1)
    assert (pnn.Scale(6.0).init(random.new_key(0, random.WEIGHTS), 3)["scale"] * 6.0).tolist() == [1.0] * 3
    zeros = pnn.NTKDense(2, kernel_init="zeros", bias_init="zeros").init(random.new_key(0, random.WEIGHTS), 3)
    assert not any(value.any() for value in zeros.values())


@pytest.mark.parametrize("columns", [None, 2])
def test_a_periodic_embedding_is_its_formula(library: Any, columns: int | None) -> None:
    layer = pnn.PeriodicEmbedding(3, frequencies=5, sigma=0.4, rate=0.1, columns=columns)
    params = layer.init(random.new_key(0, random.WEIGHTS), 4)
    x = np.random.default_rng(0).normal(size=(6, 4))
    y = library.numpy(layer.apply(library.xp, {k: library.array(v) for k, v in params.items()}, library.array(x)))
    own = {name: 0.1 * value for name, value in params.items()}
    parts = [
        np.cos(2 * np.pi * x[:, j, None] * own["frequencies"][j] + own["phases"][j]) @ own["kernel"][j] + own["bias"][j]
        for j in range(columns or 4)
    ]
    np.testing.assert_allclose(y, np.concatenate([*parts, x], axis=1), rtol=1e-11, atol=1e-12)


def test_a_periodic_embedding_begins_as_published_whatever_its_rate() -> None:
    first = pnn.PeriodicEmbedding(50, frequencies=400, sigma=0.3, rate=0.1).init(random.new_key(0, random.WEIGHTS), 20)
    first = {name: 0.1 * value for name, value in first.items()}
    assert first["frequencies"].std() == pytest.approx(0.3, rel=0.02)
    bounds = {"phases": np.pi, "kernel": 0.05, "bias": 0.05}
    for name, bound in bounds.items():
        assert abs(first[name]).max() <= bound
        assert first[name].std() == pytest.approx(bound / np.sqrt(3), rel=0.05)


def test_a_network_learns_a_wave_only_with_a_periodic_embedding() -> None:
    x = np.random.default_rng(0).uniform(-3, 3, size=(512, 1))
    y = np.sin(6 * x)

    def error(*before: Any) -> float:
        net = pnn.Network(
            [*before, pnn.Dense(16, "relu"), pnn.Dense(1)], 1, optimizer=pnn.Adam(0.02), backend="numpy", seed=0
        )
        net.fit(x, y, epochs=60, batch_size=64)
        return float(net.evaluate(x, y)["loss"])

    assert error(pnn.PeriodicEmbedding(8, sigma=1.0)) < 0.02 < 0.2 < error()


def test_a_rate_of_a_layer_is_a_factor_of_adams_rate() -> None:
    def moved(rate: float) -> np.ndarray:
        net = pnn.Network(
            [pnn.Scale(rate), pnn.Dense(1)], 3, optimizer=pnn.Adam(0.01), backend="numpy", dtype="float64"
        )
        net.fit(np.ones((8, 3)), np.arange(8.0), batch_size=None)
        return net.parameters["scale_1.scale"] * rate - 1.0

    np.testing.assert_allclose(moved(6.0), 6.0 * moved(1.0), rtol=1e-5)


def test_label_smoothing_is_a_mixture_of_targets() -> None:
    smooth = losses.SoftmaxCrossEntropy(label_smoothing=0.1)
    mixed = 0.9 * np.eye(3)[C] + 0.1 / 3
    expected = float(losses.SoftmaxCrossEntropy()(P, mixed))
    assert float(smooth(P, C)) == pytest.approx(expected, rel=1e-14)
    assert losses.SoftmaxCrossEntropy(label_smoothing=0.0) == losses.get("softmax_cross_entropy") != smooth


def test_batch_norm_standardises_and_remembers(library: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=(50, 2))
    layer = BatchNorm(momentum=0.75, epsilon=1e-3)
    values = {"scale": [2.0, 1.0], "shift": [0.0, 5.0], "mean": [1.0, 1.0], "variance": [4.0, 9.0]}
    params = {name: library.array(v) for name, v in values.items()}
    trained = library.numpy(layer.apply(library.xp, params, library.array(x), training=True))
    expected = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3) * values["scale"] + values["shift"]
    np.testing.assert_allclose(trained, expected, rtol=1e-12)
    predicted = library.numpy(layer.apply(library.xp, params, library.array(x)))
    expected = (x - values["mean"]) / np.sqrt(np.asarray(values["variance"]) + 1e-3) * values["scale"] + values["shift"]
    np.testing.assert_allclose(predicted, expected, rtol=1e-12)
    new = layer.update_statistics(library.xp, params, library.array(x))
    np.testing.assert_allclose(library.numpy(new["mean"]), 0.75 + 0.25 * x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(
        library.numpy(new["variance"]), 0.75 * np.asarray([4.0, 9.0]) + 0.25 * x.var(0), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Dense(0), "units must be a positive integer, got 0"),
        (lambda: pnn.losses.Huber(delta=-1.0), "delta must be a number of at least 0, got -1.0"),
        (lambda: pnn.losses.Huber(delta=0), "delta must be positive"),
        (lambda: pnn.losses.Huber("max"), 'reduction must be "mean" or "sum"'),
        (lambda: pnn.Adam(epsilon=-1.0), "epsilon must be a number of at least 0, got -1.0"),
        (lambda: pnn.NTKDense(0), "units must be a positive integer, got 0"),
        (lambda: pnn.NTKDense(3, bias_rate=0.0), "bias_rate must be a positive number, got 0.0"),
        (lambda: pnn.PeriodicEmbedding(1), "units must be at least 2, as one of them is the number itself, got 1"),
        (lambda: pnn.PeriodicEmbedding(sigma=0.0), "sigma must be a positive number, got 0.0"),
        (lambda: pnn.PeriodicEmbedding(columns=0), "columns must be a positive integer, got 0"),
        (
            lambda: pnn.Network([pnn.PeriodicEmbedding(columns=3)], inputs=2),
            "columns must be at most the number of inputs, 2, got 3",
        ),
        (lambda: pnn.Scale(math.inf), "rate must be a positive number, got inf"),
        (lambda: pnn.losses.SoftmaxCrossEntropy(label_smoothing=1.0), r"label_smoothing must be in \[0, 1\), got 1.0"),
        (lambda: schedules.CosLog(1.0, 15, cycles=0), "cycles must be a positive integer"),
        (lambda: BatchNorm(epsilon=-1.0), "epsilon must be a number of at least 0, got -1.0"),
        (lambda: pnn.LBFGS(max_evaluations=0), "max_evaluations must be a positive integer, got 0"),
        (lambda: pnn.LBFGS(budget=0), "budget must be a positive integer, got 0"),
        (lambda: pnn.LBFGS(tolerance=-1.0), "tolerance must be a number of at least 0, got -1.0"),
        (lambda: schedules.WarmUp(3, "fast"), "then must be a number of at least 0 or a schedule, got 'fast'"),
        (lambda: schedules.InverseScaling(-1.0, 0.5, 1, 1), "start must be a number of at least 0"),
        (lambda: Dense(2.5), "units"),
        (lambda: Dense(3, "rely"), "unknown activation 'rely'.*relu"),
        (lambda: Dropout(1.0), "rate must be in \\[0, 1\\), got 1.0"),
        (lambda: BatchNorm(momentum=1.0), "momentum"),
        (lambda: losses.SquaredError(reduction="max"), '"mean" or "sum", got \'max\''),
        (lambda: losses.get("mean"), "unknown loss 'mean'.*squared_error"),
        (lambda: optimizers.get("adm"), "unknown optimizer 'adm'.*adam"),
        (lambda: pnn.SGD(-1.0), "learning_rate"),
        (lambda: pnn.SGD(math.nan), "learning_rate"),
        (lambda: pnn.SGD(0.1, momentum=1.0), "momentum must be in \\[0, 1\\), got 1.0"),
        (lambda: pnn.Adam(beta_1=1.5), "beta_1"),
        (lambda: pnn.Adam(beta_2=1.0), "beta_2 must be in \\[0, 1\\), got 1.0"),
        (lambda: pnn.RMSprop(decay=1.0), "decay must be in \\[0, 1\\), got 1.0"),
        (lambda: pnn.Adam(clip_value=0), "clip_value must be a positive number or None, got 0"),
        (lambda: pnn.Adam(clip_value=-1.0), "clip_value must be a number of at least 0, got -1.0"),
        (lambda: pnn.Adam(l1=-1.0), "l1 must be a number of at least 0"),
        (lambda: pnn.Adam(l2=-1.0), "l2 must be a number of at least 0"),
        (lambda: pnn.Adam(weight_decay=-1.0), "weight_decay must be a number of at least 0"),
        (lambda: pnn.Adam(clip_norm=0.0), "clip_norm must be a positive number"),
        (lambda: pnn.LBFGS(clip_norm=1.0), "LBFGS minimises the loss itself"),
        (lambda: pnn.LBFGS(clip_value=1.0), "LBFGS minimises the loss itself"),
        (lambda: pnn.LBFGS(weight_decay=0.1), "LBFGS minimises the loss itself"),
        (lambda: pnn.LBFGS(schedules.CosineDecay(1.0, 10)), "LBFGS minimises the loss itself"),
        (lambda: pnn.LBFGS(memory=0), "memory must be a positive integer, got 0"),
        (lambda: initializers.initial("xavier", random.new_key(0, 1), (2, 2)), "unknown initializer 'xavier'.*glorot"),
    ],
)
def test_what_cannot_be_meant_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
