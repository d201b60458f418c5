"""L-BFGS for full batches: vectors on the device, decisions on the host.

The direction is the two-loop recursion of Nocedal & Wright (Numerical Optimization, 2006, algorithm 7.4); the line search is
that of Moré & Thuente (1994, "Line search algorithms with guaranteed sufficient decrease"). The constants are those of L-BFGS-B
(Zhu, Byrd, Lu & Nocedal 1997) in SciPy and scikit-learn, so that the same start gives the same iterates.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..program.ir import Array

DECREASE, CURVATURE, NARROW, LONGEST = 1e-3, 0.9, 0.1, 1e10
"""The constants of the strong Wolfe conditions; the relative width of an interval that ends a search; the longest step."""
TINY = 2.220446049250313e-16

Objective = Callable[[Array], tuple[float, Array]]


class Point(NamedTuple):
    """A point of a line search: the step length, the loss, its slope along the line, the parameters and the gradient."""

    length: float
    loss: float
    slope: float
    theta: Array
    gradient: Array


class Search(NamedTuple):
    """The state of the minimisation, on which its next iteration depends.

    ``steps`` holds the last changes of the parameters, those of the gradient, and the product of both.
    """

    theta: Array
    loss: float
    gradient: Array
    steps: tuple[tuple[Array, Array, float], ...]
    iterations: int


def minimize(
    xp: Any,
    objective: Objective,
    theta: Array,
    search: Search | None = None,
    *,
    memory: int,
    tolerance: float,
    iterations: int,
    evaluations: int,
    first_step: float = 1.0,
) -> Iterator[Search]:
    """Yield the state after each iteration; end early at the tolerance, or where no step decreases the loss.

    The start is ``theta``, or a state ``search`` to continue from. ``memory`` is the number of steps kept, ``tolerance`` the
    largest element of the gradient at which to end, ``evaluations`` their maximum number per line search, and ``first_step``
    the length of the first trial step along a unit vector; later ones are in units of the direction.
    """
    done, steps = 0, deque[tuple[Array, Array, float]](maxlen=memory)
    if search is None:
        loss, gradient = objective(theta)
    else:
        theta, loss, gradient, known, done = search
        steps.extend(known)
    for iteration in range(done, done + iterations):
        if float(xp.max(xp.abs(gradient))) <= tolerance:
            return
        found = None
        while found is None:
            direction = _direction(xp, gradient, steps)
            slope = float(xp.sum(direction * gradient))
            start = Point(0.0, loss, slope, theta, gradient)
            if slope < 0:
                trial = first_step if iteration else first_step / math.sqrt(-slope)
                found = _search(xp, objective, start, direction, trial, evaluations)
            if found is None and not steps:
                return
            if found is None:  # rounding has spoilt the memory
                steps.clear()
        change, turn = found.theta - theta, found.gradient - gradient
        curvature = float(xp.sum(change * turn))
        if curvature > TINY * -slope * found.length:
            steps.append((change, turn, curvature))
        theta, loss, gradient = found.theta, found.loss, found.gradient
        yield Search(theta, loss, gradient, tuple(steps), iteration + 1)


def _direction(xp: Any, gradient: Array, steps: deque[tuple[Array, Array, float]]) -> Array:
    """Return minus the approximate inverse Hessian times the gradient, without forming the matrix."""
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
    """Return a point that satisfies the strong Wolfe conditions, or where the interval has become narrow.

    After ``evaluations`` that is the lowest point so far; None if no point is lower than the start.
    """

    def at(length: float) -> Point:
        theta = start.theta + length * direction
        loss, gradient = objective(theta)
        return Point(length, loss, float(xp.sum(gradient * direction)), theta, gradient)

    wanted = DECREASE * start.slope
    low, high, lowest, length = start, start, start, trial
    bracketed, first_stage = False, True
    least, most = 0.0, 5.0 * trial
    width, width_before = LONGEST, 2.0 * LONGEST
    for _ in range(evaluations):
        point = at(length)
        if not (math.isfinite(point.loss) and math.isfinite(point.slope)):
            length = 0.5 * (low.length + length)
            continue
        lowest = min(lowest, point, key=lambda p: p.loss)
        bound = start.loss + length * wanted
        if first_stage and point.loss <= bound and point.slope >= 0:
            first_stage = False
        enough = point.loss <= bound and abs(point.slope) <= CURVATURE * -start.slope
        narrow = bracketed and (length <= least or length >= most or most - least <= NARROW * most)
        if enough or narrow or (length >= LONGEST and point.loss <= bound and point.slope <= wanted):
            return point
        # the first stage looks for a minimum of the loss above the line of sufficient decrease
        tilt = wanted if first_stage and point.loss <= low.loss and point.loss > bound else 0.0
        length, bracketed, low, high = _next(low, high, point, bracketed, least, most, tilt)
        if bracketed:
            if abs(high.length - low.length) >= 0.66 * width_before:
                length = low.length + 0.5 * (high.length - low.length)
            width_before, width = width, abs(high.length - low.length)
            least, most = min(low.length, high.length), max(low.length, high.length)
        else:
            least, most = length + 1.1 * (length - low.length), length + 4.0 * (length - low.length)
        length = min(max(length, 0.0), LONGEST)
        if bracketed and (length <= least or length >= most or most - least <= NARROW * most):
            length = low.length
    return lowest if lowest is not start else None


def _next(
    low: Point, high: Point, point: Point, bracketed: bool, least: float, most: float, tilt: float
) -> tuple[float, bool, Point, Point]:
    """Return the next length to try, whether a minimum is bracketed, and the two ends (section 4 of the paper).

    Losses and slopes are relative to a line of slope ``tilt``.
    """
    x, p, y = (end._replace(loss=end.loss - tilt * end.length, slope=end.slope - tilt) for end in (low, point, high))
    opposite = p.slope * math.copysign(1.0, x.slope) < 0.0
    secant = p.length + p.slope / (p.slope - x.slope) * (x.length - p.length) if p.slope != x.slope else math.inf
    if p.loss > x.loss:  # a higher loss: the minimum is between
        cubic = _cubic(x, p)
        bend = (x.loss - p.loss) / (p.length - x.length) + x.slope
        parabola = x.length + x.slope / bend / 2.0 * (p.length - x.length)
        closer = abs(cubic - x.length) < abs(parabola - x.length)
        length, bracketed = cubic if closer else cubic + (parabola - cubic) / 2.0, True
    elif opposite:  # a slope of the other sign: also between
        cubic = _cubic(p, x)
        length = cubic if abs(cubic - p.length) > abs(secant - p.length) else secant
        bracketed = True
    elif abs(p.slope) < abs(x.slope):  # it falls ever less steeply: beyond, if the cubic has a minimum there
        cubic = _cubic_beyond(p, x, most if p.length > x.length else least)
        nearer = abs(cubic - p.length) < abs(secant - p.length)
        if bracketed:
            length = cubic if nearer else secant
            limit = p.length + 0.66 * (y.length - p.length)
            length = min(limit, length) if p.length > x.length else max(limit, length)
        else:
            length = min(max(secant if nearer else cubic, least), most)
    elif bracketed:  # it falls as before
        length = _cubic(p, y)
    else:
        length = most if p.length > x.length else least
    if p.loss > x.loss:
        return length, bracketed, low, point
    return length, bracketed, point, low if opposite else high


def _cubic(a: Point, b: Point) -> float:
    """Return the minimum of the cubic through both losses and slopes."""
    theta, gamma = _bends(a, b)
    gamma = -gamma if b.length < a.length else gamma
    return a.length + (gamma - a.slope + theta) / (gamma - a.slope + gamma + b.slope) * (b.length - a.length)


def _cubic_beyond(p: Point, x: Point, otherwise: float) -> float:
    """Return the minimum of the cubic if it is beyond ``p``, else ``otherwise``."""
    theta, gamma = _bends(p, x)
    gamma = -gamma if p.length > x.length else gamma
    share = (gamma - p.slope + theta) / (gamma + (x.slope - p.slope) + gamma)
    return p.length + share * (x.length - p.length) if share < 0.0 and gamma != 0.0 else otherwise


def _bends(a: Point, b: Point) -> tuple[float, float]:
    theta = 3.0 * (a.loss - b.loss) / (b.length - a.length) + a.slope + b.slope
    scale = max(abs(theta), abs(a.slope), abs(b.slope))
    return theta, scale * math.sqrt(max(0.0, (theta / scale) ** 2 - (a.slope / scale) * (b.slope / scale)))
