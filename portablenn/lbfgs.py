"""L-BFGS for full batches: vectors on the device, decisions on the host.

Requires an objective that returns a loss and its gradient. Nocedal & Wright, Numerical Optimization (2006): the two-loop
recursion is algorithm 7.4, the line search for the strong Wolfe conditions is algorithms 3.5 and 3.6.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .program.ir import Array

DECREASE, CURVATURE = 1e-4, 0.9

Objective = Callable[[Array], tuple[float, Array]]


@dataclass
class Point:
    """A place on a line: how far along, the loss, its slope along the line, and where that is."""

    length: float
    loss: float
    slope: float
    theta: Array
    gradient: Array


def minimize(
    xp: Any,
    objective: Objective,
    theta: Array,
    *,
    memory: int,
    tolerance: float,
    iterations: int,
    evaluations: int,
    first_step: float = 1.0,
) -> Iterator[tuple[Array, float]]:
    """Hand out parameters and loss after each iteration; ends early at the tolerance, or where no step goes down.

    Parameters
    ----------
    xp
        The namespace.
    objective
        From a parameter vector to the loss and its gradient, a vector.
    theta
        The start.
    memory
        How many steps are remembered.
    tolerance
        The largest element of the gradient at which to end.
    iterations, evaluations
        At most; evaluations are for each line search.
    first_step
        The length of the first trial step, of the gradient's unit vector at most.
    """
    loss, gradient = objective(theta)
    steps: deque[tuple[Array, Array, float]] = deque(maxlen=memory)
    for iteration in range(iterations):
        if float(xp.max(xp.abs(gradient))) <= tolerance:
            return
        direction = _direction(xp, gradient, steps)
        slope = float(xp.sum(direction * gradient))
        if slope >= 0:  # rounding has spoilt the memory
            steps.clear()
            direction, slope = -gradient, -float(xp.sum(gradient * gradient))
        start = Point(0.0, loss, slope, theta, gradient)
        trial = first_step if iteration else min(first_step, 1.0 / float(xp.sum(xp.abs(gradient))))
        found = _search(xp, objective, start, direction, trial, evaluations)
        if found is None:
            return
        change, turn = found.theta - theta, found.gradient - gradient
        curvature = float(xp.sum(change * turn))
        if curvature > 0:
            steps.append((change, turn, curvature))
        theta, loss, gradient = found.theta, found.loss, found.gradient
        yield theta, loss


def _direction(xp: Any, gradient: Array, steps: deque[tuple[Array, Array, float]]) -> Array:
    """Minus the gradient times the approximate inverse Hessian, without ever forming that."""
    q = -gradient
    shares = []
    for change, turn, curvature in reversed(steps):
        share = float(xp.sum(change * q)) / curvature
        q = q - share * turn
        shares.append(share)
    if steps:
        _, turn, curvature = steps[-1]
        q = q * (curvature / float(xp.sum(turn * turn)))
    for (change, turn, curvature), share in zip(steps, reversed(shares), strict=True):
        q = q + (share - float(xp.sum(turn * q)) / curvature) * change
    return q


def _search(
    xp: Any, objective: Objective, start: Point, direction: Array, trial: float, evaluations: int
) -> Point | None:
    """A point that satisfies the strong Wolfe conditions; failing that, the lowest one seen; None if none is lower."""

    def at(length: float) -> Point:
        theta = start.theta + length * direction
        loss, gradient = objective(theta)
        return Point(length, loss, float(xp.sum(gradient * direction)), theta, gradient)

    lowest, before, length = start, start, trial
    bracket: tuple[Point, Point] | None = None
    for count in range(evaluations):
        point = at(length)
        if point.loss < lowest.loss:
            lowest = point
        too_high = not point.loss <= start.loss + DECREASE * length * start.slope  # also when it is NaN
        flat = abs(point.slope) <= -CURVATURE * start.slope
        if flat and not too_high:
            return point
        if bracket is None:
            if too_high or (count and point.loss >= before.loss):
                bracket = (before, point)
            elif point.slope >= 0:
                bracket = (point, before)
            else:
                before, length = point, 2.0 * length
                continue
        else:
            low, high = bracket
            if too_high or point.loss >= low.loss:
                bracket = (low, point)
            else:
                bracket = (point, low if point.slope * (high.length - low.length) >= 0 else high)
        length = _between(*bracket)
        if abs(bracket[0].length - bracket[1].length) < 1e-12 * max(1.0, bracket[0].length):
            break
    return lowest if lowest is not start else None


def _between(low: Point, high: Point) -> float:
    """The minimum of the parabola through both losses and the slope at ``low``, kept off the ends."""
    width = high.length - low.length
    bend = high.loss - low.loss - low.slope * width
    part = -low.slope * width / (2.0 * bend) if bend > 0 else 0.5
    return low.length + width * min(max(part, 0.1), 0.9)
