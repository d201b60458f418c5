"""A mixture of two normal distributions, by the gradient of its likelihood: no formulas of expectation-maximization."""

import numpy as np

import portablenn as pnn


def loss(parameters, x):
    xp = pnn.array_namespace(x)
    logits, means, logs = parameters["logits"], parameters["means"], parameters["logs"]
    weights = logits - xp.max(logits)
    weights = weights - xp.log(xp.sum(xp.exp(weights)))
    parts = weights - logs - ((x[:, None] - means) / xp.exp(logs)) ** 2 / 2.0
    return -xp.mean(xp.logaddexp(parts[:, 0], parts[:, 1]))


def run(asarray=np.asarray):
    rng = np.random.default_rng(3)
    x = asarray(np.concatenate([rng.normal(-2.0, 0.5, 100), rng.normal(1.0, 1.0, 200)]))
    parameters = {"logits": np.zeros(2), "means": np.asarray([-1.0, 0.5]), "logs": np.zeros(2)}
    parameters = {name: asarray(value) for name, value in parameters.items()}
    for _ in range(80):
        gradients = pnn.grad(loss)(parameters, x)
        parameters = {name: value - 0.5 * gradients[name] for name, value in parameters.items()}
    return float(loss(parameters, x)), [float(v) for v in parameters["means"]]


if __name__ == "__main__":
    print("loss and means:", run())
