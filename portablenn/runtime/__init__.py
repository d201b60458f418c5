"""How a Program runs, and on which library: arrays and devices, backends, the registry of them, and their executors."""
