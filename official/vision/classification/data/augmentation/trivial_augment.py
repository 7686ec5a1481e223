"""TrivialAugment (Müller and Hutter, arXiv:2103.10158): one random change of random strength.

The fourteen changes and their ranges are those of the wide space (section 4.1, table 1 there) as
torchvision's ``TrivialAugmentWide`` has them, with which its second weights were trained.
"""

from typing import Callable, Dict, Tuple

import numpy as np
from pydantic import Field

from ...section import Section
from .operations import Colour, Warp, change

BINS = 31  # strengths, from none to full

Strengths = Callable[[int], float]


def _up_to(full: float) -> Strengths:
    return lambda number: full * number / (BINS - 1)


def _bits(number: int) -> float:
    """That are kept, 8 to 2."""
    return 8 - round(6 * number / (BINS - 1))


def _level(number: int) -> float:
    """From which on pixels are inverted."""
    return 255 - 255 * number / (BINS - 1)


def _nothing(number: int) -> float:
    return 0.0


# What a strength from 0 to 30 means, and whether it is negative half of the time.
OPERATIONS: Dict[str, Tuple[Strengths, bool]] = {
    "identity": (_nothing, False),
    "shear_x": (_up_to(0.99), True),  # pixels per pixel
    "shear_y": (_up_to(0.99), True),
    "translate_x": (_up_to(32), True),  # pixels, whole ones
    "translate_y": (_up_to(32), True),
    "rotate": (_up_to(135), True),  # degrees
    "brightness": (_up_to(0.99), True),  # this and the next three: 1 + value is the factor
    "color": (_up_to(0.99), True),
    "contrast": (_up_to(0.99), True),
    "sharpness": (_up_to(0.99), True),
    "posterize": (_bits, False),
    "solarize": (_level, False),
    "auto_contrast": (_nothing, False),
    "equalize": (_nothing, False),
}


class TrivialAugment(Section):
    """``(H, W, 3)`` uint8, BGR, to the same shape; the section ``augment.trivial_augment``."""

    fill: Colour = Field(
        (0, 0, 0),
        description="B, G and R of pixels that come from outside the image",
        json_schema_extra={"values": "three integers from 0 to 255"},
    )
    interpolation: Warp = Field("bilinear", description="of rotation, shear and translation")

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.apply(image, *self.draw(rng))

    def draw(self, rng: np.random.Generator) -> Tuple[str, float]:
        """The change for one image and its value, all at equal odds."""
        name = list(OPERATIONS)[rng.integers(len(OPERATIONS))]
        strengths, signed = OPERATIONS[name]
        value = strengths(int(rng.integers(BINS)))
        return name, -value if signed and rng.random() < 0.5 else value

    def apply(self, image: np.ndarray, name: str, value: float) -> np.ndarray:
        """One change of ``OPERATIONS``."""
        if name == "identity":
            return image
        if name.startswith("translate"):
            value = int(value) / image.shape[1 if name == "translate_x" else 0]
        return change(image, name, value, self.interpolation, self.fill)
