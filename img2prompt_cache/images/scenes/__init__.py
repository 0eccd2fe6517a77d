"""Scenes: pictures for the demo, drawn by this package together with matching prompts."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
