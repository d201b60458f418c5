"""The mathematics of networks, in functions of arrays: layers, activations, losses, optimizers, and the training step."""
