"""Timed comparisons with the libraries that a user would choose instead; see ``python -m benchmarks --help``."""
