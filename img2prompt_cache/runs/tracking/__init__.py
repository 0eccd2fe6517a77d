"""Experiment trackers: what was fitted, told to TensorBoard, Weights & Biases or MLflow."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
