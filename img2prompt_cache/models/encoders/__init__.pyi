from .base import Encoder as Encoder
from .base import load_encoder as load_encoder
