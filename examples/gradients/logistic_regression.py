"""Logistic regression by gradient descent."""

import numpy as np

import portablenn as pnn


def loss(w, X, y):
    """Return the mean negative log-likelihood; y: +1 or -1."""
    xp = pnn.array_namespace(w)
    return xp.mean(xp.log1p(xp.exp(-y * (X @ w))))


def run(asarray=np.asarray):
    rng = np.random.default_rng(0)
    X, truth = rng.standard_normal((200, 3)), np.asarray([2.0, -1.0, 0.5])
    y = np.sign(X @ truth + 0.5 * rng.standard_normal(200))
    X, y, w = asarray(X), asarray(y), asarray(np.zeros(3))
    for _ in range(100):
        w = w - 1.0 * pnn.grad(loss)(w, X, y)
    return float(loss(w, X, y)), [float(v) for v in w]


if __name__ == "__main__":
    print("loss and weights:", run())
