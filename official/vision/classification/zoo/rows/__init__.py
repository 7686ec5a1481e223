"""Which trained weights exist: a row for each published weight file."""

from typing import Dict, Optional, Tuple

from .megengine import MEGENGINE
from .mindcv import MINDCV
from .mmpretrain import MMPRETRAIN
from .own import OWN
from .row import Row

ROWS: Tuple[Row, ...] = (*MEGENGINE, *MMPRETRAIN, *MINDCV, *OWN)

BY_NAME: Dict[str, Row] = {row.name: row for row in ROWS}


def default_row(arch: str) -> Optional[Row]:
    """The weights that ``pretrained=True`` means for ``arch``, None where there are none."""
    return next((row for row in ROWS if row.arch == arch), None)


__all__ = ["BY_NAME", "ROWS", "Row", "default_row"]
