"""A differential equation learnt from its solution: the gradient goes through a Runge-Kutta method, a Python loop."""

import numpy as np

import portablenn as pnn


def solution(A, x, steps, h=0.1):
    """Return the states of x' = x³ A by the classical Runge-Kutta method."""
    states, slope = [x], lambda x: (x**3) @ A
    for _ in range(steps):
        k1 = slope(x)
        k2 = slope(x + h / 2 * k1)
        k3 = slope(x + h / 2 * k2)
        k4 = slope(x + h * k3)
        x = x + h / 6 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        states.append(x)
    return pnn.array_namespace(x).stack(states)


def loss(A, start, wanted):
    return pnn.array_namespace(A).mean((solution(A, start, 12) - wanted) ** 2)


def run(asarray=np.asarray):
    start, truth = asarray(np.asarray([[1.5, 0.0]])), asarray(np.asarray([[-0.1, 1.5], [-1.5, -0.1]]))
    wanted = solution(truth, start, 12)
    A = asarray(np.asarray([[0.0, 1.0], [-1.0, 0.0]]))
    first = float(loss(A, start, wanted))
    for _ in range(25):
        A = A - 0.05 * pnn.grad(loss)(A, start, wanted)
    return first, float(loss(A, start, wanted))


if __name__ == "__main__":
    print("loss before and after:", run())
