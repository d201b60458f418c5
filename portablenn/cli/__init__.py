"""The command line: train, predict and inspect for tables; demo, backends, verify and bench.

Requires typer and rich (the extra "cli").
"""

from .app import app
from .tables import inspect, predict, train
from .tools import backends, bench, demo, example, verify

__all__ = ["app", "backends", "bench", "demo", "example", "inspect", "predict", "train", "verify"]
