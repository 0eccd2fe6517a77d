"""Prompts one can read: phrases of known prompts, put together near a prediction."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
