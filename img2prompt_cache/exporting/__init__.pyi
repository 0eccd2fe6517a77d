from .model_card import card as card
from .push import Pushed as Pushed
