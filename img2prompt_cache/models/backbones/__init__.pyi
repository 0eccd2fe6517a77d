from .base import Backbone as Backbone
from .registry import FAMILIES as FAMILIES
from .registry import load_backbone as load_backbone
