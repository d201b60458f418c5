"""A recurrent network that learns to go on with a wave, one value at a time."""

import numpy as np

import portablenn as pnn


def predictions(p, wave):
    """Return for each value of the wave what is expected next."""
    xp = pnn.array_namespace(wave)
    state, found = p["start"], []
    for i in range(wave.shape[0]):
        state = xp.tanh(state @ p["state"] + wave[i] * p["input"])
        found.append(xp.sum(state * p["output"]))
    return xp.stack(found)


def loss(p, wave):
    xp = pnn.array_namespace(wave)
    return xp.mean((predictions(p, wave[:-1]) - wave[1:]) ** 2)


def run(asarray=np.asarray):
    rng = np.random.default_rng(4)
    shapes = {"start": (8,), "state": (8, 8), "input": (8,), "output": (8,)}
    p = {name: asarray(0.4 * rng.standard_normal(shape)) for name, shape in shapes.items()}
    wave = asarray(np.sin(np.linspace(0.0, 6.0, 21)))
    first = float(loss(p, wave))
    for _ in range(30):
        gradients = pnn.grad(loss)(p, wave)
        p = {name: value - 0.1 * gradients[name] for name, value in p.items()}
    return first, float(loss(p, wave))


if __name__ == "__main__":
    print("loss before and after:", run())
