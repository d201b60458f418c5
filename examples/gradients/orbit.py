"""The velocity that brings a satellite to a place: a gradient through a simulation, by Newton's method on its Jacobian."""

import numpy as np

import portablenn as pnn


def pull(xp, x):
    return -x / xp.sum(x * x) ** 1.5


def arrival(velocity, position, steps=40, h=0.05):
    """Return where it is after some steps of the leapfrog method around a mass at the origin."""
    xp = pnn.array_namespace(velocity)
    for _ in range(steps):
        velocity = velocity + h / 2 * pull(xp, position)
        position = position + h * velocity
        velocity = velocity + h / 2 * pull(xp, position)
    return position


def run(asarray=np.asarray):
    position, target = asarray(np.asarray([1.0, 0.0])), asarray(np.asarray([-0.8, 0.9]))
    velocity = asarray(np.asarray([0.0, 1.0]))
    xp = pnn.array_namespace(velocity)
    for _ in range(8):
        miss = arrival(velocity, position) - target
        slopes = pnn.jacobian(arrival)(velocity, position)
        velocity = velocity - xp.linalg.solve(slopes, miss[:, None])[:, 0]
    return [float(v) for v in velocity], float(xp.max(xp.abs(arrival(velocity, position) - target)))


if __name__ == "__main__":
    print("velocity, and what it misses the target by:", run())
