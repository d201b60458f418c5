"""The mathematics of networks as functions of arrays: layers, activations, losses, optimizers, and the training step."""
