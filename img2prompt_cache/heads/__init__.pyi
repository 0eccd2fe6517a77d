from .base import Head as Head
from .registry import HEADS as HEADS
from .registry import head_class as head_class
from .registry import make_head as make_head
from .registry import settings_of as settings_of
from .registry import space_of as space_of
from .settings import Setting as Setting
