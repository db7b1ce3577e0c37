"""Exporting a network: its code, its weights, or ONNX."""
