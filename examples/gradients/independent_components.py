"""Independent components of mixed signals, by maximum likelihood (Bell & Sejnowski 1995)."""

import numpy as np

import portablenn as pnn


def loss(W, mixed):
    xp = pnn.array_namespace(W)
    sources = mixed @ xp.matrix_transpose(W)
    return xp.mean(xp.sum(xp.log(xp.cosh(sources)), axis=1)) - xp.linalg.slogdet(W)[1]


def run(asarray=np.asarray):
    rng = np.random.default_rng(6)
    mixed = rng.laplace(size=(400, 3)) @ rng.standard_normal((3, 3))
    mixed, W = asarray(mixed / np.std(mixed)), asarray(np.eye(3))
    for _ in range(60):
        W = W - 0.2 * pnn.grad(loss)(W, mixed)
    return float(loss(W, mixed))


if __name__ == "__main__":
    print("loss:", run())
