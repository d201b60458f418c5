"""NumPy's executor: a plan with preallocated buffers, and how each operation is called."""
