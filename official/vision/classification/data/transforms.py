"""From a decoded image to what the network is fed: ``(H, W, 3)`` uint8 in, the same out.

Random transforms take their generator as an argument and draw from nothing else, so that a
sample's augmentation depends on the sample alone.
"""

from dataclasses import dataclass
from typing import Any, Optional, Tuple, Union

import cv2
import numpy as np

from ..errors import DataError
from ..preprocess import Preprocess
from .erasing import random_erasing
from .rand_augment import RandAugment
from .rectangle import draw_rectangle

INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}

Box = Tuple[float, float, float, float]  # top, left, bottom, right, as shares of the image's edges

MAX_PIXELS = 1 << 27  # of a resized image, 400 MB: a thin strip could otherwise fill the memory


def resize(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Scale to what ``preprocess.resize`` says, with its interpolation, library and rounding.

    Raises:
        DataError: when the long edge would be out of all proportion.
    """
    if preprocess.resize is None:
        return image
    old_height, old_width = image.shape[:2]
    height, width = _new_size((old_height, old_width), preprocess.resize, preprocess.rounding)
    if (height, width) == (old_height, old_width):
        return image
    if height * width > MAX_PIXELS:
        raise DataError(
            f"an image of {old_width}x{old_height} pixels would grow to {width}x{height}"
        )
    return _scaled(image, (width, height), preprocess.interpolation, preprocess.library)


def _new_size(
    shape: Tuple[int, int], resize: Union[int, Tuple[int, int]], rounding: str
) -> Tuple[int, int]:
    """Height and width after resizing."""
    if isinstance(resize, tuple):
        return resize
    height, width = shape
    to_pixels = int if rounding == "down" else round
    if height < width:
        return resize, to_pixels(resize * width / height)
    return to_pixels(resize * height / width), resize


def center_corner(shape: Tuple[int, ...], size: int, rounding: str) -> Tuple[int, int]:
    """Top and left of the central ``size`` x ``size`` square; for ``rounding`` see Preprocess.

    Args:
        shape: of the image; it begins with height and width.

    Raises:
        DataError: when the image is smaller than that.
    """
    height, width = shape[:2]
    if height < size or width < size:
        raise DataError(f"an image of {width}x{height} pixels is too small for a crop of {size}")
    to_pixels = round if rounding == "down" else int
    return to_pixels((height - size) / 2), to_pixels((width - size) / 2)


def center_crop(image: np.ndarray, size: int, rounding: str = "down") -> np.ndarray:
    """The central square; arguments and errors are those of ``center_corner``."""
    top, left = center_corner(image.shape, size, rounding)
    return image[top : top + size, left : left + size]


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
    left, top, width, height = _random_box(image, rng, area, aspect)
    part = image[top : top + height, left : left + width]
    return _scaled(part, (size, size), interpolation, library)


def _scaled(
    image: np.ndarray, shape: Tuple[int, int], interpolation: str, library: str
) -> np.ndarray:
    """The image at ``shape``, width and height, as ``library`` computes it."""
    if library == "cv2":
        return cv2.resize(image, shape, interpolation=INTERPOLATION[interpolation])
    from PIL import Image  # not needed by most weights, and users of the hub may lack it

    image = np.ascontiguousarray(image)  # far slower if left to Pillow
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling[interpolation.upper()]))


def _random_box(
    image: np.ndarray,
    rng: np.random.Generator,
    area: Tuple[float, float],
    aspect: Tuple[float, float],
) -> Tuple[int, int, int, int]:
    full_height, full_width = image.shape[:2]
    box = draw_rectangle((full_width, full_height), area, aspect, rng)
    if box:
        return box
    ratio = min(max(full_width / full_height, aspect[0]), aspect[1])
    width = min(full_width, int(round(full_height * ratio)))
    height = min(full_height, int(round(full_width / ratio)))
    return (full_width - width) // 2, (full_height - height) // 2, width, height


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


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flip, colour jitter, RandAugment and erasing, in this order.

    ``(H, W, 3)`` uint8, BGR, to ``(size, size, 3)`` uint8, BGR.

    Args:
        size: edge of the square that comes out, in pixels.
        area: share of the image a resized crop takes; None for a crop of whole pixels instead.
        padding: black border in pixels for the crop of whole pixels.
        jitter: strength of the colour jitter, 0 for none.
        interpolation, library: of the resized crop; see Preprocess.
        aspect: width over height of a resized crop.
        preprocess: resizes the image before a crop of whole pixels; None to leave it as it is.
        rand_augment: None for none.
        erasing: probability of random erasing.
    """

    size: int
    area: Optional[Tuple[float, float]] = (0.08, 1.0)
    padding: int = 0
    flip: bool = True
    jitter: float = 0.0
    interpolation: str = "bilinear"
    library: str = "cv2"
    aspect: Tuple[float, float] = (3 / 4, 4 / 3)
    preprocess: Optional[Preprocess] = None
    rand_augment: Optional[RandAugment] = None
    erasing: float = 0.0

    @classmethod
    def from_sections(cls, augment: Any, preprocess: Preprocess, size: int) -> "TrainTransform":
        """The transform that a recipe's sections describe.

        Args:
            augment: the section of that name: an object with its fields. Its crop is "resized";
                or, of the image resized as for evaluation, "random" for any square of it and
                "padded" for any square of it in a black border.
            preprocess: of evaluation.
            size: edge of a training image in pixels.
        """
        ops = augment.rand_augment
        return cls(
            size,
            area=augment.area if augment.crop == "resized" else None,
            padding=augment.padding if augment.crop == "padded" else 0,
            flip=augment.flip,
            jitter=augment.jitter,
            interpolation=augment.interpolation,
            library=augment.library,
            aspect=augment.aspect,
            preprocess=None if augment.crop == "resized" else preprocess,
            rand_augment=None if ops is None else RandAugment(**dict(ops)),
            erasing=augment.erasing,
        )

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        image = self._crop(image, rng)
        if self.flip:
            image = random_flip(image, rng)
        if self.jitter:
            image = color_jitter(image, self.jitter, rng)
        if self.rand_augment:
            image = self.rand_augment(image, rng)
        return random_erasing(image, self.erasing, rng) if self.erasing else image

    def _crop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.area:
            return random_resized_crop(
                image, self.size, rng, self.area, self.aspect, self.interpolation, self.library
            )
        if self.preprocess:
            image = resize(image, self.preprocess)
        return random_padded_crop(image, self.size, self.padding, rng)


@dataclass(frozen=True)
class EvalTransform:
    """What a set of weights is tested with: resize, centre crop; nothing random."""

    preprocess: Preprocess

    def __call__(self, image: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        return self.with_box(image)[0]

    def with_box(self, image: np.ndarray) -> Tuple[np.ndarray, Box]:
        """The result, and which part of ``image`` it shows."""
        p = self.preprocess
        image = resize(image, p)
        if not p.crop:
            return image, (0.0, 0.0, 1.0, 1.0)
        height, width = image.shape[:2]
        top, left = center_corner(image.shape, p.crop, p.rounding)
        bottom, right = top + p.crop, left + p.crop
        box = (top / height, left / width, bottom / height, right / width)
        return image[top:bottom, left:right], box


def to_network_layout(image: np.ndarray, order: str) -> np.ndarray:
    """``(H, W, 3)`` BGR to ``(3, H, W)`` in the network's channel order, still uint8.

    In memory it stays ``(H, W, 3)``, contiguous, so that the worker does the shuffling and not
    whoever makes a tensor of the batch.
    """
    image = np.ascontiguousarray(image)
    if order == "RGB":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # ten times as fast as numpy's [:, :, ::-1]
    return image.transpose(2, 0, 1)
