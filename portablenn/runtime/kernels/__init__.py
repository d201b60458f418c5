"""What backends that compile kernels share: fusion of operations into groups, buffers, and the order of launches."""
