"""What is done to a training image: the keys of a recipe's section, and what they do.

``(H, W, 3)`` uint8, BGR, in and out. Random transforms take their generator as an argument and draw
from nothing else, so that a sample's augmentation depends on the sample alone.
"""

from dataclasses import dataclass
from typing import Literal, Optional, Tuple

import cv2
import numpy as np
from pydantic import Field, field_validator

from ..errors import DataError
from ..preprocess import Preprocess
from ..section import Count, Interpolation, Library, Section, Share
from .augmentation.erasing import random_erasing
from .augmentation.rand_augment import RandAugment
from .augmentation.rectangle import draw_rectangle
from .augmentation.trivial_augment import TrivialAugment
from .decoding.headers import Header
from .jpeg import DIVISORS, Box, PartDecoder
from .sampler import Key, generator_of
from .transforms import resize, scaled


class Augment(Section):
    """What is done to a training image, in the order of the keys, and then to a batch of them.

    A key that draws is off by default, and another augmentation is another key; what it does is a
    function below, which ``TrainTransform`` calls in its turn.
    """

    _kind = "crop"
    _of_kind = {
        "size": ("resized",),
        "area": ("resized",),
        "aspect": ("resized",),
        "interpolation": ("resized",),
        "library": ("resized",),
        "decode": ("resized",),
        "padding": ("padded",),
    }

    crop: Literal["resized", "padded", "random"] = Field(
        "resized",
        description="`resized`: a random part, scaled (Szegedy et al., arXiv:1409.4842); "
        "`random`: a random square of the image that was resized as `preprocess` says; `padded`: "
        "of the same in a black border (He et al., arXiv:1512.03385, section 4.2). The square's "
        "edge is that of `preprocess`, or `size`",
    )
    size: Optional[Count] = Field(
        None,
        description="edge in pixels of a training image, where it is not the one of a test: a "
        "network sees things larger in random parts than in a test, and more so the smaller they "
        "are (Touvron et al., arXiv:1906.06423)",
    )
    area: Share = Field(
        (0.08, 1.0),
        description="share of the image that is kept",
        json_schema_extra={"values": "two rising numbers above 0, up to 1"},
    )
    aspect: Share = Field(
        (3 / 4, 4 / 3),
        description="width over height of what is kept",
        json_schema_extra={"values": "two rising numbers above 0"},
    )
    interpolation: Optional[Interpolation] = Field(
        None,
        description="how it is scaled; `null`: as `preprocess.interpolation` says",
        json_schema_extra={"values": "`nearest`, `bilinear`, `bicubic`, `area` or `null`"},
    )
    library: Optional[Library] = Field(
        None,
        description="whose scaling, which differs; `null`: as `preprocess.library` says, so that "
        "a network sees in training what it will see in a test",
        json_schema_extra={"values": "`cv2`, `pillow` or `null`"},
    )
    decode: Literal["exact", "scaled"] = Field(
        "exact",
        description="`scaled`: a large JPEG file is decoded to 1/2, 1/4 or 1/8 of its edges where "
        "the part is that much larger than what it is scaled to; `exact`: as it is",
    )
    padding: int = Field(4, ge=0, le=10**4, description="width of the border in pixels")
    flip: bool = Field(True, description="mirror an image, at even odds")
    jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="brightness, contrast and saturation change by up to this share",
    )
    rand_augment: Optional[RandAugment] = Field(
        None,
        description="RandAugment (Cubuk et al., arXiv:1909.13719) as timm has it; `{}` turns it on",
    )
    trivial_augment: Optional[TrivialAugment] = Field(
        None,
        description="TrivialAugment (Müller and Hutter, arXiv:2103.10158), the wide space, as "
        "torchvision has it; `{}` turns it on",
    )
    erasing: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a random rectangle is erased (Zhong et al., "
        "arXiv:1708.04896)",
    )
    erasing_area: Share = Field(
        (0.02, 0.4),
        description="share of the image that the rectangle has; torchvision's is up to 0.33",
        json_schema_extra={"values": "two rising numbers above 0, up to 1"},
    )
    erasing_fill: Literal["noise", "mean"] = Field(
        "noise",
        description="what is there then: `noise`, or the colour `preprocess.mean`, which is 0 to "
        "the network (torchvision)",
    )
    mixup: float = Field(
        0.0,
        ge=0,
        description="alpha of mixup's Beta distribution, 0 for none (Zhang et al., "
        "arXiv:1710.09412)",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        description="the same of CutMix (Yun et al., arXiv:1905.04899); with both, each batch gets "
        "one of them at equal odds",
    )
    repeats: Count = Field(
        1, description="crops of an image in one batch (Berman et al., arXiv:1902.05509)"
    )

    @field_validator("area", "erasing_area")
    @classmethod
    def _shares(cls, area: Share) -> Share:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("area must be two rising numbers above 0 and up to 1")
        return area

    @field_validator("aspect")
    @classmethod
    def _ratios(cls, aspect: Share) -> Share:
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError("aspect must be two rising numbers above 0")
        return aspect

    def scaling(self, preprocess: Preprocess) -> Tuple[str, str]:
        """The interpolation and the library of resized crops, beside that of evaluation."""
        return (
            self.interpolation or preprocess.interpolation,
            self.library or preprocess.library,
        )


@dataclass(frozen=True)
class TrainTransform:
    """A section at work: ``(H, W, 3)`` uint8, BGR, to ``(size, size, 3)`` uint8, BGR.

    Args:
        size: edge of the square that comes out, in pixels.
        preprocess: of evaluation, which resizes the image before all crops but the resized one, and
            says how that one is scaled where ``augment`` does not.
    """

    size: int
    augment: Augment = Augment()
    preprocess: Preprocess = Preprocess()

    @property
    def library(self) -> str:
        """Whose scaling it is."""
        return self.augment.scaling(self.preprocess)[1]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self._after_crop(self._crop(image, rng), rng)

    def _after_crop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        augment = self.augment
        if augment.flip:
            image = random_flip(image, rng)
        if augment.jitter:
            image = color_jitter(image, augment.jitter, rng)
        if augment.rand_augment:
            image = augment.rand_augment(image, rng)
        if augment.trivial_augment:
            image = augment.trivial_augment(image, rng)
        if augment.erasing:
            image = self._erase(image, rng)
        return image

    def _erase(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        augment, fill = self.augment, None
        if augment.erasing_fill == "mean":
            mean = self.preprocess.mean
            fill = mean if self.preprocess.order == "BGR" else mean[::-1]
        return random_erasing(image, augment.erasing, rng, augment.erasing_area, fill=fill)

    def of_file(
        self, data: bytes, header: Optional[Header], key: Key, decoder: PartDecoder
    ) -> Optional[np.ndarray]:
        """The same from a JPEG file, of which no more is decoded than a resized crop needs.

        The pixels are those of the whole image, to the bit. With ``decode: scaled`` a pixel is the
        mean of several, and the crop's corner is rounded to one of them.

        Args:
            header: what ``check_image`` found in ``data``; None before it was asked.
            key: of the generator of what is drawn.

        Returns:
            None without a header where one is needed, and where only the whole image will do.
        """
        how, rng, mirrored = self.augment, None, False
        if decoder.draws and not self._changes_pixels:
            shape = header.upright if header else None
            drawn = decoder.draw(data, shape, key, how.area, how.aspect, how.flip)
            if drawn is None:
                return None
            box, mirrored = drawn
        elif header is None:
            return None
        else:
            rng = generator_of(key)
            box = random_box(header.upright, rng, how.area, how.aspect)
        divisor = 1
        if how.decode == "scaled":
            fits = [each for each in DIVISORS if min(box[2:]) >= each * self.size]
            divisor = max(fits, default=1)
            box = _divided(box, divisor)
        part = decoder.part(data, box, header.orientation if header else 1, divisor)
        if part is None:
            return None
        part = scaled(part, (self.size, self.size), *how.scaling(self.preprocess))
        if rng is not None:
            return self._after_crop(part, rng)
        return cv2.flip(part, 1) if mirrored else part

    @property
    def _changes_pixels(self) -> bool:
        """Whether more is drawn than a part and its mirror image."""
        how = self.augment
        return bool(how.jitter or how.rand_augment or how.trivial_augment or how.erasing)

    def _crop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        how = self.augment
        if how.crop == "resized":
            scaling = how.scaling(self.preprocess)
            return random_resized_crop(image, self.size, rng, how.area, how.aspect, *scaling)
        padding = how.padding if how.crop == "padded" else 0
        return random_padded_crop(resize(image, self.preprocess), self.size, padding, rng)


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    area: Tuple[float, float] = (0.08, 1.0),
    aspect: Tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
    library: str = "cv2",
) -> np.ndarray:
    """A random part of the image, scaled to ``size`` x ``size`` (Szegedy et al., arXiv:1409.4842).

    Its area is a share of the image's, uniform in ``area``; its width over height is
    log-uniform in ``aspect``. After ten misses it is the largest central part that fits. For
    ``library``, "cv2" or "pillow", see Preprocess.
    """
    left, top, width, height = random_box((image.shape[1], image.shape[0]), rng, area, aspect)
    part = image[top : top + height, left : left + width]
    return scaled(part, (size, size), interpolation, library)


def random_box(
    shape: Tuple[int, int],
    rng: np.random.Generator,
    area: Tuple[float, float],
    aspect: Tuple[float, float],
) -> Box:
    """What ``random_resized_crop`` takes of an image of this width and height."""
    full_width, full_height = shape
    box = draw_rectangle((full_width, full_height), area, aspect, rng)
    if box:
        return box
    ratio = min(max(full_width / full_height, aspect[0]), aspect[1])
    width = min(full_width, int(round(full_height * ratio)))
    height = min(full_height, int(round(full_width / ratio)))
    return (full_width - width) // 2, (full_height - height) // 2, width, height


def _divided(box: Box, divisor: int) -> Box:
    """A box in an image of a fraction of the size, to the nearest pixels inside of it."""
    left, top, width, height = box
    return left // divisor, top // divisor, max(1, width // divisor), max(1, height // divisor)


def random_padded_crop(
    image: np.ndarray, size: int, padding: int, rng: np.random.Generator
) -> np.ndarray:
    """A random ``size`` x ``size`` part of the image in a black border (He et al., section 4.2)."""
    if padding:
        image = cv2.copyMakeBorder(image, *[padding] * 4, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    height, width = image.shape[:2]
    if height < size or width < size:
        raise DataError(f"an image of {width}x{height} pixels is too small for a crop of {size}")
    top = int(rng.integers(0, height - size + 1))
    left = int(rng.integers(0, width - size + 1))
    return image[top : top + size, left : left + size]


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirror left and right, half of the time."""
    return cv2.flip(image, 1) if rng.random() < 0.5 else image


def color_jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast and saturation, in random order, each by up to ``strength``.

    Every change blends the image with black, with its mean grey, or with its grey version, by a
    factor uniform in ``[1 - strength, 1 + strength]`` (Howard, arXiv:1312.5402). BGR images.
    """
    for change in rng.permutation(3):
        factor = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength)
        if change == 0:
            other = np.float32(0)
        elif change == 1:
            other = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean(dtype=np.float32)
        else:
            other = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[:, :, None].astype(np.float32)
        blended = image * np.float32(factor) + other * np.float32(1 - factor)
        image = np.clip(blended, 0, 255).astype(np.uint8)
    return image
