"""Sources on other machines: objects in buckets, on the model hub and on web servers, copied in order."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
