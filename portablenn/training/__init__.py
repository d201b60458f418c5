"""Training: the network, the training loop and what it needs."""
