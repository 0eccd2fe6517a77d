"""Reports: what a cache and its runs hold, as one page that people look at, and as JSON."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
