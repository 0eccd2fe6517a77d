"""Run image encoders once, cache their features, and predict prompt embeddings with fast heads."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
