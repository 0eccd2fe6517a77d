"""Images: decoding files to RGB, augmented views, and resizing to the input of a backbone."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
