from .backbones import load_backbone as load_backbone
from .encoders import load_encoder as load_encoder
from .loader import Models as Models
