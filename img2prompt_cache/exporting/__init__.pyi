from .model_card import card as card
