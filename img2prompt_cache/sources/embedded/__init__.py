"""Prompts embedded in image files, as the programs that generated the images write them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
