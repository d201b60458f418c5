"""Transforms of functions: gradients and compilation, the cache of compiled programs, and trees of arrays."""
