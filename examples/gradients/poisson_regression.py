"""Poisson regression by Newton's method, with the product of the Hessian and a vector in conjugate gradients."""

import numpy as np

import portablenn as pnn


def loss(w, X, counts):
    xp = pnn.array_namespace(w)
    eta = X @ w
    return xp.mean(xp.exp(eta) - counts * eta)


def conjugate_gradients(w, X, counts, b, steps):
    """Solve H x = b for the Hessian H of the loss at w."""
    x, r = 0.0 * b, b
    p = r
    for _ in range(steps):
        q = pnn.hvp(loss)(w, p, X, counts)
        step = (r @ r) / (p @ q)
        x, following = x + step * p, r - step * q
        p = following + (following @ following) / (r @ r) * p
        r = following
    return x


def run(asarray=np.asarray):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((300, 4)) * 0.5
    counts = rng.poisson(np.exp(X @ np.asarray([1.0, -0.5, 0.3, 0.0]))).astype(float)
    X, counts, w = asarray(X), asarray(counts), asarray(np.zeros(4))
    for _ in range(6):
        w = w - conjugate_gradients(w, X, counts, pnn.grad(loss)(w, X, counts), 4)
    return [float(v) for v in w]


if __name__ == "__main__":
    print("weights:", run())
