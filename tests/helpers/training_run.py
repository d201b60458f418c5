"""A training in a process of its own, which tests kill: forked from a process that has imported the libraries, or as a script."""

from __future__ import annotations

import hashlib
import importlib.util
import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

import portablenn as pnn
from portablenn.callbacks import Checkpoint, EarlyStopping
from portablenn.runtime.arrays import to_numpy


def train(folder: str, backend: str, say: Any, epochs: int = 12, patience: int = 50) -> None:
    """Train, or resume what is in the folder; say "begin", and at the end a digest of the network and its history."""
    X = np.random.default_rng(0).normal(size=(4000, 20)).astype("f4")
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    layers = [pnn.Dense(64, "relu"), pnn.Dropout(0.1), pnn.Dense(2)]
    net = pnn.Network(layers, 20, "softmax_cross_entropy", backend=backend)
    callbacks = [EarlyStopping(patience=patience), Checkpoint(folder, every_steps=7, keep=2)]
    say("begin")
    net.fit(X, y, epochs=epochs, validation_split=0.1, callbacks=callbacks, resume=folder)
    digest = hashlib.sha256(b"".join(to_numpy(v).tobytes() for v in (net.state.theta, *net.state.slots)))
    digest.update(repr(sorted(net.history.items())).encode())
    say(digest.hexdigest())


def _train(folder: str, backend: str, connection: Connection) -> None:
    train(folder, backend, connection.send)


class Run:
    """A process that trains."""

    def __init__(self, folder: Path, backend: str) -> None:
        context = multiprocessing.get_context("forkserver")
        libraries = [name for name in ("torch", "jax", "numba") if importlib.util.find_spec(name)]
        context.set_forkserver_preload(["training_run", *libraries])
        self.said, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_train, args=(str(folder), backend, theirs))
        self.process.start()
        theirs.close()
        assert self.said.recv() == "begin"

    def end(self) -> str:
        """Return the digest."""
        digest = self.said.recv()
        self.process.join(60)
        assert self.process.exitcode == 0
        return str(digest)

    def kill(self) -> bool:
        """Kill the process; return whether it was still running."""
        self.process.kill()
        self.process.join()
        self.said.close()
        return self.process.exitcode == -9


if __name__ == "__main__":
    train(*sys.argv[1:3], lambda text: print(text, flush=True), *map(int, sys.argv[3:]))
