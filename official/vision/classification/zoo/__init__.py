"""Which trained weights exist, how they are had, and how they get into a network."""

from .fill import fill
from .models import ARCHS, arch_of, get_model, list_models
from .rows import ROWS, Row, default_row
from .trained import fill_pretrained
from .weights import Weights, load_weights

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
