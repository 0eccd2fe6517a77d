"""Fit a head, score it on held-out rows, and save it as a run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
