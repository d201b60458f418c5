"""The minimum of Rosenbrock's function, by Newton's method: the Hessian is that of a plain function."""

import numpy as np

import portablenn as pnn


def rosenbrock(x):
    xp = pnn.array_namespace(x)
    return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def run(asarray=np.asarray):
    x, steps = asarray(np.asarray([0.8, 0.9, 0.7])), 0
    xp = pnn.array_namespace(x)
    while float(rosenbrock(x)) > 1e-20 and steps < 50:
        x = x - xp.linalg.solve(pnn.hessian(rosenbrock)(x), pnn.grad(rosenbrock)(x)[:, None])[:, 0]
        steps += 1
    return steps, [float(v) for v in x]


if __name__ == "__main__":
    print("steps and minimum:", run())
