"""Which trained weights exist: a row for each published weight file."""

from typing import Dict, Optional, Tuple

from .megengine import MEGENGINE
from .mindcv import MINDCV
from .mmpretrain import MMPRETRAIN
from .own import OWN
from .row import Result, Row
from .tables import read_tables

# The first of a network's is what pretrained=True means: MegEngine/Models', MMPreTrain's or
# MindCV's own where they have one, as those who come from there expect.
ROWS: Tuple[Row, ...] = (*MEGENGINE, *MMPRETRAIN, *MINDCV, *read_tables(), *OWN)

BY_NAME: Dict[str, Row] = {row.name: row for row in ROWS}

BEST = "best"  # as pretrained=, or as a file of weights: see best_row


def default_row(arch: str) -> Optional[Row]:
    """The weights that ``pretrained=True`` means for ``arch``, None where there are none."""
    return next((row for row in ROWS if row.arch == arch), None)


def best_row(arch: str) -> Optional[Row]:
    """The weights that ``pretrained="best"`` means for ``arch``, None where there are none.

    Of those that may be used commercially and are for the data set of the network's default ones,
    the most accurate by the publisher's own figures.
    """
    default = default_row(arch)
    rows = [row for row in ROWS if row.arch == arch and row.commercial]
    rows = [row for row in rows if default is not None and row.dataset == default.dataset]
    return max(rows, key=lambda row: row.top1 or 0.0) if rows else None


__all__ = ["BEST", "BY_NAME", "ROWS", "Result", "Row", "best_row", "default_row"]
