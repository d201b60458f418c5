"""A normal distribution close to one known up to a factor, by gradients through its samples (Kingma & Welling 2014)."""

import numpy as np

import portablenn as pnn


def log_density(z):
    """Return that of a funnel, for points (…, 2)."""
    xp = pnn.array_namespace(z)
    return -(z[:, 0] ** 2) / 2.0 / 1.35**2 - z[:, 1] ** 2 / 2.0 * xp.exp(-z[:, 0]) - z[:, 0] / 2.0


def loss(mean, logs, noise):
    """Return the negative evidence lower bound, without constants."""
    xp = pnn.array_namespace(mean)
    return -xp.mean(log_density(mean + xp.exp(logs) * noise)) - xp.sum(logs)


def run(asarray=np.asarray):
    rng = np.random.default_rng(7)
    mean, logs = asarray(np.asarray([-1.0, 0.5])), asarray(np.asarray([-1.0, -1.0]))
    for _ in range(60):
        noise = asarray(rng.standard_normal((100, 2)))
        by_mean, by_logs = pnn.grad(loss, argnums=(0, 1))(mean, logs, noise)
        mean, logs = mean - 0.1 * by_mean, logs - 0.1 * by_logs
    return [float(v) for v in mean], [float(v) for v in logs]


if __name__ == "__main__":
    print("mean and logarithms of the deviations:", run())
