"""Timed comparisons with the libraries that a user would pick instead. ``python -m benchmarks --help`` says how."""
