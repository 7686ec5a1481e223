"""Changes of colours and places that RandAugment and TrivialAugment draw from.

Each takes and returns ``(H, W, 3)`` uint8, BGR, as Pillow computes it; ``change`` says what a value
means.
"""

import math
from typing import Literal, Tuple

import cv2
import numpy as np
from pydantic import AfterValidator
from typing_extensions import Annotated


def _check_colour(colour: Tuple[int, int, int]) -> Tuple[int, int, int]:
    """The same, when it is one; a ValueError for a key of a recipe otherwise."""
    if not all(0 <= value <= 255 for value in colour):
        raise ValueError("input should be three integers from 0 to 255, for B, G and R")
    return colour


Colour = Annotated[Tuple[int, int, int], AfterValidator(_check_colour)]
Warp = Literal["nearest", "bilinear", "bicubic"]

_levels = np.arange(256)  # what a byte can be

# cv2.addWeighted rounds. Less this, it cuts fractions off as Pillow's blend does, and whole
# numbers stay what they are in spite of its float32 arithmetic.
_CUT_OFF = -0.499

_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13

_WARP = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}


def change(
    image: np.ndarray, name: str, value: float, interpolation: Warp, fill: Colour
) -> np.ndarray:
    """One change of an image.

    Args:
        name: of ``auto_contrast``, ``equalize``, ``invert``; ``posterize``, ``solarize``,
            ``solarize_add``, ``color``, ``contrast``, ``brightness``, ``sharpness``; ``rotate``,
            ``shear_x``, ``shear_y``, ``translate_x``, ``translate_y``.
        value: ignored by the first three; bits that are kept, rounded up; the level from which on
            pixels are inverted; levels that dark pixels are raised by; for the next four the
            factor less 1; degrees clockwise; pixels per pixel; a share of the width or height.
        interpolation: of the last five.
        fill: their B, G and R of pixels that come from outside the image.
    """
    if name in _PIXELS:
        return _PIXELS[name](image, value)
    height, width = image.shape[:2]
    return cv2.warpAffine(
        image,
        _MATRICES[name](value, height, width),
        (width, height),
        flags=_WARP[interpolation],
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=fill,
    )


# Operations on pixels. Most are a table of 256 levels.


def _auto_contrast(image: np.ndarray, _: float) -> np.ndarray:
    """Stretch each channel to the full range."""
    tables = []
    for channel in cv2.split(image):
        low, high = int(channel.min()), int(channel.max())
        scale = 255 / (high - low) if high > low else 1.0
        tables.append(_levels * scale - low * scale if high > low else _levels)
    return _look_up(image, np.stack(tables, 1))


def _equalize(image: np.ndarray, _: float) -> np.ndarray:
    """Give each channel a flat histogram, as well as that goes."""
    tables = []
    for number in range(3):
        counts = cv2.calcHist([image], [number], None, [256], [0, 256])[:, 0].astype(np.int64)
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        below = np.cumsum(counts) - counts
        tables.append((below + step // 2) // step if step else _levels)
    return _look_up(image, np.stack(tables, 1))


def _invert(image: np.ndarray, _: float) -> np.ndarray:
    return cv2.bitwise_not(image)


def _posterize(image: np.ndarray, bits: float) -> np.ndarray:
    dropped = 8 - math.ceil(bits)
    return _look_up(image, _levels >> dropped << dropped)


def _solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    return _look_up(image, np.where(_levels < threshold, _levels, 255 - _levels))


def _solarize_add(image: np.ndarray, value: float) -> np.ndarray:
    return _look_up(image, np.where(_levels < 128, _levels + value, _levels))


def _brightness(image: np.ndarray, value: float) -> np.ndarray:
    return _look_up(image, _levels * (1 + value))


def _contrast(image: np.ndarray, value: float) -> np.ndarray:
    mean = round(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    return _look_up(image, mean + (_levels - mean) * (1 + value))


def _color(image: np.ndarray, value: float) -> np.ndarray:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, 1 + value, grey, -value, 0)  # rounded, as MMPreTrain's is


def _sharpness(image: np.ndarray, value: float) -> np.ndarray:
    return cv2.addWeighted(image, 1 + value, cv2.filter2D(image, -1, _SMOOTH), -value, _CUT_OFF)


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each level by the table's, without its fraction; (256,) for all, or (256, 3)."""
    table = np.clip(table, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table.reshape(1, 256, -1))


_PIXELS = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
}


# Operations that move pixels: where (x, y) goes, as a matrix of shape (2, 3).


def _rotate(degrees: float, height: int, width: int) -> np.ndarray:
    """Clockwise about the centre."""
    return cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)


def _shear_x(value: float, height: int, width: int) -> np.ndarray:
    return np.array([[1, value, 0], [0, 1, 0]], float)


def _shear_y(value: float, height: int, width: int) -> np.ndarray:
    return np.array([[1, 0, 0], [value, 1, 0]], float)


def _translate_x(value: float, height: int, width: int) -> np.ndarray:
    return np.array([[1, 0, value * width], [0, 1, 0]], float)


def _translate_y(value: float, height: int, width: int) -> np.ndarray:
    return np.array([[1, 0, 0], [0, 1, value * height]], float)


_MATRICES = {
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
