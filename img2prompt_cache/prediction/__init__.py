"""A fitted head on new images, and the prompts nearest to what it predicts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
