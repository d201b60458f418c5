"""Conversion from and to other libraries: PyTorch modules, weights of PyTorch and Keras, ONNX."""

from .onnx import from_onnx, to_onnx
from .torch import from_torch
from .weights import load_weights, save_weights

__all__ = ["from_onnx", "from_torch", "load_weights", "save_weights", "to_onnx"]
