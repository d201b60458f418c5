"""A Gaussian process: its kernel's scales by the gradient of the marginal likelihood (Rasmussen & Williams 2006, chapter 5)."""

import math

import numpy as np

import portablenn as pnn


def negative_log_likelihood(logs, x, y):
    """Return it for the logarithms of amplitude, length scale and noise."""
    xp = pnn.array_namespace(logs)
    amplitude, length, noise = xp.exp(logs[0]), xp.exp(logs[1]), xp.exp(logs[2])
    covariance = amplitude * xp.exp(-(((x[:, None] - x[None, :]) / length) ** 2) / 2.0)
    covariance = covariance + noise * xp.eye(x.shape[0], dtype=x.dtype, device=x.device)
    factor = xp.linalg.cholesky(covariance)
    white = xp.linalg.solve(factor, y[:, None])
    return (
        xp.sum(white**2) / 2.0 + xp.sum(xp.log(xp.linalg.diagonal(factor))) + 0.5 * x.shape[0] * math.log(2 * math.pi)
    )


def run(asarray=np.asarray):
    rng = np.random.default_rng(2)
    x = np.sort(rng.uniform(-3.0, 3.0, 25))
    x, y = asarray(x), asarray(np.sin(2.0 * x) + 0.1 * rng.standard_normal(25))
    logs = asarray(np.asarray([0.0, 0.0, -1.0]))
    for _ in range(60):
        logs = logs - 0.02 * pnn.grad(negative_log_likelihood)(logs, x, y)
    return float(negative_log_likelihood(logs, x, y)), [float(v) for v in logs]


if __name__ == "__main__":
    print("negative log-likelihood, and logarithms of amplitude, length and noise:", run())
