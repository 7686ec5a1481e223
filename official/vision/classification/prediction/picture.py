"""A picture with what a network sees in it written below."""

from typing import TYPE_CHECKING, Sequence

import cv2
import numpy as np

if TYPE_CHECKING:
    from .inference import Guess

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WIDTH, _HEIGHT = 480, 960  # of the image in the result, in pixels: a strip is not drawn out
_ROW = 30
_WHITE, _INK, _BAR = (255, 255, 255), (40, 40, 40), (230, 190, 140)  # BGR


def fit(image: np.ndarray) -> np.ndarray:
    """The image as large as 480x960 pixels hold; one that has that size stays as it is."""
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    # Small pictures keep their pixels; large ones are averaged, not sampled.
    interpolation = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    size = (max(1, int(round(scale * width))), max(1, int(round(scale * height))))
    return cv2.resize(image, size, interpolation=interpolation)


def annotate(image: np.ndarray, guesses: Sequence["Guess"]) -> np.ndarray:
    """The image, 480 pixels wide, above one row per guess: a bar, its name, its share.

    An image more than twice as high as wide is 960 pixels high, in the middle of a white field.
    """
    picture = fit(image)
    left = (_WIDTH - picture.shape[1]) // 2
    right = _WIDTH - picture.shape[1] - left
    picture = cv2.copyMakeBorder(picture, 0, 0, left, right, cv2.BORDER_CONSTANT, value=_WHITE)
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
