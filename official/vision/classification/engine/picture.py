"""A picture with what a network sees in it written below."""

from typing import TYPE_CHECKING, Sequence

import cv2
import numpy as np

if TYPE_CHECKING:
    from .predictor import Guess

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WIDTH = 480  # of the result, in pixels
_ROW = 30
_WHITE, _INK, _BAR = (255, 255, 255), (40, 40, 40), (230, 190, 140)  # BGR


def annotate(image: np.ndarray, guesses: Sequence["Guess"]) -> np.ndarray:
    """The image at a width of 480 pixels above one row per guess: a bar, its name, its share."""
    height, width = image.shape[:2]
    scale = _WIDTH / width
    # Small pictures keep their pixels; large ones are averaged, not sampled.
    interpolation = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    size = (_WIDTH, max(1, int(round(scale * height))))
    picture = cv2.resize(image, size, interpolation=interpolation)
    panel = np.full((_ROW * len(guesses) + 10, _WIDTH, 3), _WHITE, np.uint8)
    for row, guess in enumerate(guesses):
        top = 5 + row * _ROW
        length = int(round((_WIDTH - 10) * guess.probability))
        cv2.rectangle(panel, (5, top + 2), (5 + length, top + _ROW - 3), _BAR, cv2.FILLED)
        _write(panel, guess.name.replace("_", " "), (12, top + 21))
        _write(panel, f"{100 * guess.probability:.1f} %", (_WIDTH - 90, top + 21))
    return np.concatenate([picture, panel])


def _write(panel: np.ndarray, text: str, position: tuple) -> None:
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    cv2.putText(panel, text, position, _FONT, 0.55, _INK, 1, cv2.LINE_AA)
