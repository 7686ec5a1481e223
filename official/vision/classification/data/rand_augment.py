"""RandAugment (Cubuk et al., arXiv:1909.13719): a few random operations of random strength.

The fifteen operations, their ranges and signs are MMPreTrain's "timm_increasing" policy, with
which it trained the rows of "ResNet strikes back" (Wightman et al., arXiv:2110.00476).
"""

import math
from typing import List, Literal, NamedTuple, Optional, Tuple

import cv2
import numpy as np
from pydantic import Field, field_validator, model_validator
from pydantic import PositiveFloat as Positive

from ..section import Count, Section

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


class Strength(NamedTuple):
    """What an operation's value is when the magnitude is zero and when it is full."""

    zero: float
    full: float
    signed: bool = False  # negative half of the time


OPERATIONS = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "rotate": Strength(0, 30, signed=True),  # degrees
    "posterize": Strength(4, 0),  # bits that are kept, rounded up
    "solarize": Strength(256, 0),  # level from which on pixels are inverted
    "solarize_add": Strength(0, 110),  # levels that dark pixels are raised by
    "color": Strength(0, 0.9, signed=True),  # this and the next three: 1 + value is the factor
    "contrast": Strength(0, 0.9, signed=True),
    "brightness": Strength(0, 0.9, signed=True),
    "sharpness": Strength(0, 0.9, signed=True),
    "shear_x": Strength(0, 0.3, signed=True),  # pixels per pixel
    "shear_y": Strength(0, 0.3, signed=True),
    "translate_x": Strength(0, 0.45, signed=True),  # share of the width
    "translate_y": Strength(0, 0.45, signed=True),  # share of the height
}


class RandAugment(Section):
    """``(H, W, 3)`` uint8, BGR, to the same shape; the section ``augment.rand_augment``."""

    ops: Count = Field(2, description="changes drawn for an image, with replacement")
    magnitude: float = Field(7, ge=0, description="mean of their strength, at most `levels`")
    magnitude_std: float = Field(0.5, ge=0, description="its standard deviation")
    probability: float = Field(0.5, ge=0, le=1, description="of each change that was drawn")
    levels: Positive = Field(10, description="the strength at which a change is at its most")
    fill: Tuple[int, int, int] = Field(
        (104, 116, 124),
        description="B, G and R of pixels that come from outside the image",
        json_schema_extra={"values": "three integers from 0 to 255"},
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        "bicubic", description="of rotation, shear and translation"
    )

    @field_validator("fill")
    @classmethod
    def _color(cls, fill: Tuple[int, int, int]) -> Tuple[int, int, int]:
        if not all(0 <= value <= 255 for value in fill):
            raise ValueError("input should be three integers from 0 to 255, for B, G and R")
        return fill

    @model_validator(mode="after")
    def _within_its_levels(self) -> "RandAugment":
        if self.magnitude > self.levels:
            raise ValueError(f"magnitude {self.magnitude:g} is above levels {self.levels:g}")
        return self

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for name, value in self.draw(rng):
            image = self.apply(image, name, value)
        return image

    def draw(self, rng: np.random.Generator) -> List[Tuple[str, float]]:
        """The operations for one image, in turn, with their values."""
        names = list(OPERATIONS)
        drawn = [names[number] for number in rng.integers(len(names), size=self.ops)]
        kept = [name for name in drawn if rng.random() < self.probability]
        return [(name, self._draw_value(OPERATIONS[name], rng)) for name in kept]

    def _draw_value(self, strength: Optional[Strength], rng: np.random.Generator) -> float:
        if strength is None:
            return 0.0
        magnitude = min(max(rng.normal(self.magnitude, self.magnitude_std), 0.0), self.levels)
        value = strength.zero + magnitude / self.levels * (strength.full - strength.zero)
        return -value if strength.signed and rng.random() < 0.5 else value

    def apply(self, image: np.ndarray, name: str, value: float) -> np.ndarray:
        """One operation of ``OPERATIONS``; ``value`` is ignored by those without a strength."""
        if name in _PIXELS:
            return _PIXELS[name](image, value)
        height, width = image.shape[:2]
        return cv2.warpAffine(
            image,
            _MATRICES[name](value, height, width),
            (width, height),
            flags=_WARP[self.interpolation],
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=self.fill,
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
