"""Which trained weights exist, how they are had, and how they get into a network."""

from .load import Weights, fill, fill_pretrained, load_weights
from .models import ARCHS, arch_of, get_model, list_models
from .rows import ROWS, Row, default_row

__all__ = [
    "ARCHS",
    "ROWS",
    "Row",
    "Weights",
    "arch_of",
    "default_row",
    "fill",
    "fill_pretrained",
    "get_model",
    "list_models",
    "load_weights",
]
