"""Which trained weights exist: one card per published row."""

from typing import Dict, Optional, Tuple

from .card import Card
from .megengine import MEGENGINE
from .mindcv import MINDCV
from .mmpretrain import MMPRETRAIN
from .own import OWN

CARDS: Tuple[Card, ...] = (*MEGENGINE, *MMPRETRAIN, *MINDCV, *OWN)

BY_NAME: Dict[str, Card] = {card.name: card for card in CARDS}


def default_card(arch: str) -> Optional[Card]:
    """The weights that ``pretrained=True`` means for ``arch``, None where there are none."""
    return next((card for card in CARDS if card.arch == arch), None)


__all__ = ["BY_NAME", "CARDS", "Card", "default_card"]
