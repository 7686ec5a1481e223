"""Which trained weights exist, how they are had, and how they get into a network."""

from .cards import CARDS, Card, default_card
from .load import Weights, fill, fill_pretrained, load_weights
from .models import ARCHS, arch_of, get_model, list_models

__all__ = [
    "ARCHS",
    "CARDS",
    "Card",
    "Weights",
    "arch_of",
    "default_card",
    "fill",
    "fill_pretrained",
    "get_model",
    "list_models",
    "load_weights",
]
