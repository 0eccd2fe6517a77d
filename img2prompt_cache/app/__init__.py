"""App: a page and an HTTP interface that predict prompts for images, served from this machine."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
