"""Words in pictures: drawn by Pillow, in a font of this machine that has their letters."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, FrozenSet, List, Optional, Tuple

import numpy as np

from ..text import printable

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

Colour = Tuple[int, int, int]  # BGR

# Fonts with Chinese, Japanese and Korean letters, by what their files' names contain; the rest of
# the machine's fonts comes after them.
_PREFERRED = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "droidsansfallback", "simhei")
_MOST_FONTS = 400  # that are looked into for a letter
_LONGEST = 200  # letters of a name: a picture has room for fewer

logger = logging.getLogger(__name__)


@lru_cache(maxsize=None)
def _own() -> Path:
    """DejaVu Sans, which matplotlib brings along."""
    import matplotlib  # it and Pillow: users of the hub may lack them, and draw nothing

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@lru_cache(maxsize=1)
def _installed() -> List[str]:
    """The machine's fonts, the preferred ones first."""
    from matplotlib import font_manager

    def place(path: str) -> Tuple[int, str]:
        name = Path(path).name.lower().replace("-", "").replace("_", "")
        fitting = [rank for rank, part in enumerate(_PREFERRED) if part in name]
        return (fitting[0] if fitting else len(_PREFERRED), path)

    found = {
        str(path) for kind in ("ttf", "otf") for path in font_manager.findSystemFonts(None, kind)
    }
    return sorted(found, key=place)[:_MOST_FONTS]


@lru_cache(maxsize=None)
def _letters(path: str) -> FrozenSet[int]:
    """Which code points a font file has; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache(maxsize=4096)
def font_file(text: str) -> Optional[str]:
    """A font that has all letters of ``text``: DejaVu Sans, else one of the machine's; or None."""
    wanted = {ord(letter) for letter in text if not letter.isspace()}
    if wanted <= _letters(str(_own())):
        return str(_own())
    return next((path for path in _installed() if wanted <= _letters(path)), None)


@lru_cache(maxsize=1)
def _remark() -> None:
    logger.warning(
        "no font of this machine has the letters of some class names, which are drawn as their "
        "numbers; a package such as fonts-noto-cjk or fonts-wqy-microhei brings them"
    )


def drawable(name: str, number: int) -> str:
    """A class's name as pictures show it; ``class 7`` where no font has its letters.

    The latter is said once, on the log.
    """
    shown = printable(name[:_LONGEST].replace("_", " "))
    if font_file(shown) is not None:
        return shown
    _remark()
    return f"class {number}"


class Lettering:
    """Writes on one picture.

    Args:
        picture: ``(H, W, 3)`` uint8, BGR; it is not changed.
    """

    def __init__(self, picture: np.ndarray):
        from PIL import Image, ImageDraw

        self._image = Image.fromarray(np.ascontiguousarray(picture[..., ::-1]))
        self._draw = ImageDraw.Draw(self._image)

    def write(
        self,
        text: str,
        x: int,
        middle: int,
        size: int,
        colour: Colour,
        room: int,
        right: bool = False,
    ) -> None:
        """Write a line of ``size`` pixels around the height ``middle``, from ``x`` on or up to it.

        Args:
            room: its width in pixels, at most; what is too long ends in an ellipsis.
            right: whether ``x`` is the right end.
        """
        font = _font(font_file(text) or str(_own()), size)
        text = _fitting(text, font, room)
        self._draw.text((x, middle), text, colour[::-1], font, "rm" if right else "lm")

    def picture(self) -> np.ndarray:
        """The picture with the words, BGR."""
        return np.asarray(self._image)[..., ::-1].copy()


@lru_cache(maxsize=64)
def _font(path: str, size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


def _fitting(text: str, font: "FreeTypeFont", room: int) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"
