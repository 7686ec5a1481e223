"""RandAugment (Cubuk et al., arXiv:1909.13719): a few random operations of random strength.

The fifteen operations, their ranges and signs are MMPreTrain's "timm_increasing" policy, with
which it trained the rows of "ResNet strikes back" (Wightman et al., arXiv:2110.00476).
"""

from typing import List, NamedTuple, Optional, Tuple

import numpy as np
from pydantic import Field, model_validator
from pydantic import PositiveFloat as Positive

from ...section import Count, Section
from .operations import Colour, Warp, change


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
    fill: Colour = Field(
        (104, 116, 124),
        description="B, G and R of pixels that come from outside the image",
        json_schema_extra={"values": "three integers from 0 to 255"},
    )
    interpolation: Warp = Field("bicubic", description="of rotation, shear and translation")

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
        return change(image, name, value, self.interpolation, self.fill)
