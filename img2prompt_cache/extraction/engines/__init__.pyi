from .base import Engine as Engine
from .registry import ENGINES as ENGINES
from .registry import make_engine as make_engine
