"""Linear algebra and Fourier transforms: values, derivatives, vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from messages import raises

import portablenn as pnn

rng = np.random.default_rng(0)
A = rng.standard_normal((2, 3, 3)) + 2.0 * np.eye(3)
S = A @ np.swapaxes(A, -1, -2) + np.diag([1.0, 2.0, 4.0])
TALL, WIDE, B = rng.standard_normal((2, 4, 3)), rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 2))
Z = rng.standard_normal((3, 5)) + 1j * rng.standard_normal((3, 5))


def _hermitian(z: Any, xp: Any) -> Any:
    return z + xp.conj(xp.matrix_transpose(z))


CASES: dict[str, tuple[Any, tuple[np.ndarray, ...]]] = {
    "inv": (lambda xp, a: xp.linalg.inv(a), (A,)),
    "det": (lambda xp, a: xp.linalg.det(a), (A,)),
    "slogdet": (lambda xp, a: xp.linalg.slogdet(a)[1] * xp.linalg.slogdet(a)[0], (A,)),
    "solve": (lambda xp, a, b: xp.linalg.solve(a, b), (A, B)),
    "solve a vector": (lambda xp, a, b: xp.linalg.solve(a, b), (A[0], B[0, :, 0])),
    "solve for each": (lambda xp, a, b: xp.linalg.solve(a, b), (A, B[0])),
    "cholesky": (lambda xp, s: xp.linalg.cholesky(s), (S,)),
    "cholesky upper": (lambda xp, s: xp.linalg.cholesky(s, upper=True), (S,)),
    "eigh": (lambda xp, s: xp.linalg.eigh(s)[0] ** 2, (S,)),
    "eigenvectors": (lambda xp, s: xp.abs(xp.linalg.eigh(s)[1]), (S,)),
    "eigvalsh": (lambda xp, s: xp.linalg.eigvalsh(s), (S,)),
    "qr": (lambda xp, a: xp.linalg.qr(a)[0] + xp.linalg.qr(a)[1][..., 0:1, :], (TALL,)),
    "qr square": (lambda xp, a: xp.linalg.qr(a)[1] ** 2, (A,)),
    "svd tall": (lambda xp, a: xp.abs(xp.linalg.svd(a, full_matrices=False)[0]), (TALL,)),
    "svd wide": (lambda xp, a: xp.abs(xp.linalg.svd(a, full_matrices=False)[2]), (WIDE,)),
    "svdvals": (lambda xp, a: xp.linalg.svdvals(a) ** 2, (TALL,)),
    "pinv tall": (lambda xp, a: xp.linalg.pinv(a), (TALL,)),
    "pinv wide": (lambda xp, a: xp.linalg.pinv(a), (WIDE,)),
    "matrix_power": (lambda xp, a: xp.linalg.matrix_power(a, 3) + xp.linalg.matrix_power(a, -2) + xp.linalg.matrix_power(a, 0), (A,)),
    **{f"matrix_norm {o}": (lambda xp, a, o=o: xp.linalg.matrix_norm(a, ord=o), (A,)) for o in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)},
    "matrix_norm keepdims": (lambda xp, a: xp.linalg.matrix_norm(a, ord=2, keepdims=True), (A,)),
    **{f"vector_norm {o}": (lambda xp, a, o=o: xp.linalg.vector_norm(a, ord=o, axis=-1), (A,)) for o in (1, 2, 3, np.inf, -np.inf)},
    "vector_norm of all": (lambda xp, a: xp.linalg.vector_norm(a, keepdims=True), (A,)),
    "diagonal": (lambda xp, a: xp.linalg.diagonal(a, offset=-1), (TALL,)),
    "trace": (lambda xp, a: xp.linalg.trace(a, offset=1), (WIDE,)),
    "outer": (lambda xp, a, b: xp.linalg.outer(a, b), (B[0, 0], A[0, 1])),
    "cross": (lambda xp, a, b: xp.linalg.cross(a, b), (A[0], A[1])),
    "rank": (lambda xp, a: a * xp.astype(xp.linalg.matrix_rank(a), a.dtype)[:, None, None], (TALL,)),
    "products": (lambda xp, a, b: xp.linalg.matmul(a, b) + xp.linalg.vecdot(a, a)[..., None], (A, B)),
    "fft": (lambda xp, x: xp.abs(xp.fft.fft(x)), (B,)),
    "fft shorter": (lambda xp, x: xp.real(xp.fft.fft(x, n=2, axis=1)), (TALL,)),
    "fft longer": (lambda xp, x: xp.imag(xp.fft.fft(x, n=6, axis=1, norm="ortho")), (TALL,)),
    "ifft": (lambda xp, x: xp.real(xp.fft.ifft(x, norm="forward") * x), (A,)),
    "rfft": (lambda xp, x: xp.abs(xp.fft.rfft(x)), (TALL,)),
    "rfft even": (lambda xp, x: xp.imag(xp.fft.rfft(x, axis=1, norm="ortho")), (TALL,)),
    "irfft": (lambda xp, x: xp.fft.irfft(xp.fft.rfft(x, axis=1) ** 2, axis=1), (TALL,)),
    "irfft odd": (lambda xp, x: xp.fft.irfft(x + 1j * x**2, n=7, norm="ortho"), (WIDE,)),
    "hfft": (lambda xp, x: xp.fft.hfft(x + 2j * x), (WIDE,)),
    "ihfft": (lambda xp, x: xp.real(xp.fft.ihfft(x) ** 2), (WIDE,)),
    "fftn": (lambda xp, x: xp.real(xp.fft.fftn(x)), (TALL,)),
    "ifftn": (lambda xp, x: xp.imag(xp.fft.ifftn(x, s=(3, 5), axes=(1, 2))), (TALL,)),
    "rfftn": (lambda xp, x: xp.real(xp.fft.rfftn(x, axes=(0, 2))), (TALL,)),
    "irfftn": (lambda xp, x: xp.fft.irfftn(xp.fft.rfftn(x) ** 2, s=(2, 4, 3), axes=(0, 1, 2)), (TALL,)),
    "shifts": (lambda xp, x: xp.fft.fftshift(x) * xp.fft.ifftshift(x, axes=(1,)), (TALL,)),
    "frequencies": (lambda xp, x: xp.asarray(xp.fft.fftfreq(3), dtype=x.dtype) * x, (TALL,)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_are_the_librarys_and_gradients_the_limit_of_differences(name: str, library: Any) -> None:
    function, arguments = CASES[name]
    xp = pnn.get_backend("numpy").xp
    expected = function(xp, *arguments)
    weights = np.cos(np.arange(expected.size)).reshape(expected.shape)

    def loss(*arrays: Any) -> Any:
        xp = pnn.array_namespace(*arrays)
        return xp.sum(function(xp, *arrays) * xp.asarray(weights.tolist(), dtype=arrays[0].dtype))

    arrays = [library.array(a) for a in arguments]
    compiled = pnn.compile(lambda *a: function(pnn.array_namespace(*a), *a))(*arrays)
    np.testing.assert_allclose(library.numpy(compiled), expected, rtol=1e-9, atol=1e-9)
    symmetric = name.startswith(("cholesky", "eig"))
    for i, x in enumerate(arguments):
        found = library.numpy(pnn.grad(loss, argnums=i)(*arrays))
        direction = np.random.default_rng(i).standard_normal(x.shape)
        direction = direction + np.swapaxes(direction, -1, -2) if symmetric else direction
        at = lambda h, i=i, d=direction: np.sum(  # noqa: E731
            weights * function(xp, *(a + h * d if n == i else a for n, a in enumerate(arguments)))
        )
        np.testing.assert_allclose(np.sum(found * direction), (at(1e-6) - at(-1e-6)) / 2e-6, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    "name",
    [
        n
        for n in CASES
        if all(a.ndim == 3 for a in CASES[n][1])
        and n not in ("fftn", "ifftn", "rfftn", "irfftn", "shifts", "vector_norm of all", "rank")
    ],
)
def test_vmap_equals_a_loop(name: str) -> None:
    function, arguments = CASES[name]
    one = lambda *a: function(pnn.array_namespace(*a), *a)  # noqa: E731
    if "axis=1" in name or name in ("fft shorter", "fft longer", "rfft even", "irfft"):
        one = lambda *a: pnn.xp.fft.rfft(a[0], axis=0)  # noqa: E731
    found = pnn.vmap(one)(*arguments)
    for k in range(2):
        np.testing.assert_allclose(found[k], pnn.compile(one)(*(a[k] for a in arguments)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["inv", "solve", "cholesky", "eigh", "qr", "svdvals", "det", "irfft", "pinv tall"])
def test_second_derivatives_agree_with_differences_of_the_first(name: str) -> None:
    function, arguments = CASES[name]
    x, rest = arguments[0][0], [a[0] for a in arguments[1:]]
    if name == "irfft":
        function = lambda xp, x: xp.fft.irfft(xp.fft.rfft(x) ** 2)  # noqa: E731
    v = np.random.default_rng(1).standard_normal(x.shape)
    v = v + v.T if name in ("cholesky", "eigh") else v
    gradient = pnn.grad(lambda x: pnn.xp.sum(pnn.xp.sin(function(pnn.xp, x, *rest))))
    found = pnn.jvp(gradient, (x,), (v,))[1]
    np.testing.assert_allclose(found, (gradient(x + 1e-6 * v) - gradient(x - 1e-6 * v)) / 2e-6, rtol=1e-5, atol=1e-6)


def test_complex_matrices_have_derivatives() -> None:
    H = Z[:, :3] @ Z[:, :3].conj().T + 3.0 * np.eye(3)
    functions = {
        "inv": lambda z: pnn.xp.linalg.inv(z), "solve": lambda z: pnn.xp.linalg.solve(z, z * z),
        "det": lambda z: pnn.xp.linalg.det(z), "fft": lambda z: pnn.xp.fft.fft(z) ** 2, "ifftn": lambda z: pnn.xp.fft.ifftn(z * z),
        "cholesky": lambda z: pnn.xp.linalg.cholesky(_hermitian(z, pnn.xp)), "irfft": lambda z: pnn.xp.fft.irfft(z),
        "eigh": lambda z: pnn.xp.linalg.eigh(_hermitian(z, pnn.xp))[0], "log": lambda z: pnn.xp.linalg.slogdet(z)[1],
    }  # fmt: skip
    for name, function in functions.items():
        loss = pnn.compile(lambda z, function=function: pnn.xp.sum(pnn.xp.abs(function(z)) ** 2))  # type: ignore[misc]
        found = pnn.grad(loss)(H)
        d = np.random.default_rng(1).standard_normal((3, 3, 2)) @ [1, 1j]
        slope = (loss(H + 1e-5 * d) - loss(H - 1e-5 * d)) / 2e-5
        np.testing.assert_allclose(np.real(np.sum(found * d)), slope, rtol=1e-6, err_msg=name)


def test_numpys_names_are_traced() -> None:
    def function(x: Any) -> Any:
        u, s, vt = np.linalg.svd(x, full_matrices=False)
        values, vectors = np.linalg.eigh(x @ x.T)
        q, r = np.linalg.qr(x)
        spectrum = np.fft.fft(x, 4, 0, "ortho") + np.fft.fft2(x, (4, 3)) + np.fft.fftn(x, (4, 3), axes=(0, 1))
        return (
            np.sum((u * s) @ vt) + np.sum(vectors**2 * values) + np.sum(q @ r) + np.linalg.slogdet(x)[1] + np.linalg.norm(x, 2)
            + np.sum(np.abs(spectrum)) + np.sum(np.fft.fftshift(np.fft.irfft(np.fft.rfft(x, axis=0), axis=0))) + np.sum(np.angle(x + 1j))
            + np.linalg.multi_dot([x, x, x])[0, 0] + np.sum(np.linalg.pinv(x)) + np.sum(np.linalg.eigvalsh(x @ x.T))
        )  # fmt: skip

    d = np.random.default_rng(1).standard_normal((3, 3))
    slope = (function(A[0] + 1e-6 * d) - function(A[0] - 1e-6 * d)) / 2e-6
    np.testing.assert_allclose(np.sum(pnn.grad(function)(A[0]) * d), slope, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda x: pnn.xp.linalg.inv(x[:2]), "square matrices, got shape"),
        (lambda x: pnn.xp.linalg.inv(pnn.xp.astype(x, pnn.xp.int64)), "floating dtypes, got int64"),
        (lambda x: pnn.xp.linalg.solve(x, x[:2]), "3 equations and 2"),
        (lambda x: pnn.xp.linalg.qr(x[:2]), "at least as many rows"),
        (lambda x: pnn.xp.linalg.qr(x, mode="complete"), "reduced decomposition"),
        (lambda x: pnn.xp.linalg.svd(x[:2]), "full_matrices=False"),
        (lambda x: pnn.xp.linalg.matrix_norm(x, ord=3), "ord is"),
        (lambda x: pnn.xp.linalg.cross(x[:, :2], x[:, :2]), "length 3, got 2"),
        (lambda x: pnn.xp.fft.rfft(x * 1j), "real arrays, got complex128"),
        (lambda x: pnn.xp.fft.fft(x, norm="no"), "norm is one of"),
        (lambda x: pnn.xp.fft.fft(x, n=0), "a length of 0"),
        (lambda x: pnn.xp.fft.fftn(x, s=(1,), axes=(0, 1)), "1 and 2 entries"),
    ],
)
def test_wrong_calls_say_what_is_wrong(function: Any, says: str) -> None:
    with raises((TypeError, ValueError), says):
        pnn.compile(function)(A[0])


def test_a_decomposition_without_a_rule_for_complex_matrices_says_so() -> None:
    with pytest.raises(pnn.NotDifferentiableError, match="svd has a derivative rule for real matrices only"):
        pnn.grad(lambda z: pnn.xp.sum(pnn.xp.linalg.svdvals(z)))(Z[:3, :3])
