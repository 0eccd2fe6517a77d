"""Scenes drawn here: pictures with honest prompts for the demo, made without a network."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
