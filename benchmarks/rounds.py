"""Time contestants in turns, round after round, so that drift in the machine's speed affects all of them equally.

Each runs in a process of its own, so that none shares threads or memory with another, and waits there for its turn.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

Timed = Callable[[], object]
PAUSE, TURN = 0.2, 0.5
"""Seconds: the pause before a turn, until the previous contestant's threads are asleep, and the minimum length of a turn."""
SETTINGS = ("OPENBLAS_", "OMP_", "MKL_", "XLA_", "NUMBA_", "PORTABLENN_")
"""Prefixes of environment variables that change how the libraries run."""


@dataclass(frozen=True)
class Contestant:
    """A contestant: ``maker``, a "module:function" of this folder, returns the function to time for these arguments.

    It is left out where one of ``packages`` is not installed; ``environment`` is set in its process.
    """

    name: str
    maker: str
    arguments: dict[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(package) for package in self.packages)


@dataclass(frozen=True)
class Measured:
    """One contestant's measurements: seconds of each round and of the first call, and the growth of its memory."""

    seconds: list[float]
    first: float
    peak_bytes: int


def compete(contestants: list[Contestant], rounds: int, busy: int = 0) -> dict[str, Measured]:
    """Return the measurements by name, after two untimed calls of each, while ``busy`` other processes want a core each.

    A contestant that fails is printed and left out.
    """
    with _started([c for c in contestants if c.installed]) as ready, _busy(busy):
        seconds: dict[str, list[float]] = {name: [] for name in ready}
        for _ in range(rounds):
            for name, (line, _) in ready.items():
                line.send("run")
                seconds[name].append(line.recv())
        found = {}
        for name, (line, first) in ready.items():
            line.send("end")
            found[name] = Measured(seconds[name], first, line.recv())
    return found


@contextmanager
def _started(contestants: list[Contestant]) -> Iterator[dict[str, tuple[Connection, float]]]:
    context = multiprocessing.get_context("spawn")
    ready: dict[str, tuple[Connection, float]] = {}
    processes = []
    try:
        for contestant in contestants:
            here, there = context.Pipe()
            process = context.Process(target=_contest, args=(contestant, there), daemon=True)
            process.start()
            there.close()
            processes.append(process)
            try:
                first = here.recv()
            except EOFError:
                first = "its process ended"
            if isinstance(first, float):
                ready[contestant.name] = here, first
            else:
                print(f"{contestant.name} is left out: {first}")
        yield ready
    finally:
        for process in processes:
            process.kill()


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Run processes that do nothing but compute."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _contest(contestant: Contestant, line: Connection) -> None:
    os.environ.update(contestant.environment)
    try:
        module, _, function = contestant.maker.partition(":")
        package = __name__.rpartition(".")[0]
        timed = getattr(importlib.import_module(f"{package}.{module}"), function)(**contestant.arguments)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        timed()
        first = time.perf_counter() - start
        timed()
    except Exception as error:
        traceback.print_exc()
        line.send(f"{type(error).__name__}: {error}")
        return
    line.send(first)
    while line.recv() == "run":
        time.sleep(PAUSE)
        line.send(_seconds(timed))
    line.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)


def _seconds(timed: Timed) -> float:
    """Return the seconds of one call, averaged over the calls of a turn."""
    start, seconds, calls = time.perf_counter(), 0.0, 0
    while seconds < TURN:
        timed()
        seconds, calls = time.perf_counter() - start, calls + 1
    return seconds / calls


def machine() -> dict[str, str]:
    """Return the processor, the versions of the libraries and the settings that matter."""
    facts = {"processor": _processor(), "cores": str(os.cpu_count()), "python": platform.python_version()}
    for name in ("numpy", "numba", "cupy-cuda13x", "cupy-cuda12x", "scikit-learn", "torch", "jax", "keras", "thinc"):
        with suppress(importlib.metadata.PackageNotFoundError):
            facts[name] = importlib.metadata.version(name)
    return facts | {
        name: value for name, value in os.environ.items() if name.startswith(SETTINGS) and "DATA" not in name
    }


def _processor() -> str:
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as file:
        return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    return platform.processor() or platform.machine()
