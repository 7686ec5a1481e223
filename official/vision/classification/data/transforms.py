"""From a decoded image to what the network is fed: ``(H, W, 3)`` uint8 in, the same out.

Random transforms take their generator as an argument and draw from nothing else, so that a
sample's augmentation depends on the sample alone.
"""

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import cv2
import numpy as np

from ..errors import DataError
from ..preprocess import Preprocess

INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


MAX_PIXELS = 1 << 27  # of a resized image, 400 MB: a thin strip could otherwise fill the memory


def resize_short_edge(image: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """Scale so that the short edge is ``size``; the long one is rounded down.

    Raises:
        DataError: when the long one would be out of all proportion.
    """
    height, width = image.shape[:2]
    if min(height, width) == size:
        return image
    if height < width:
        shape = (int(size * width / height), size)
    else:
        shape = (size, int(size * height / width))
    if shape[0] * shape[1] > MAX_PIXELS:
        raise DataError(f"an image of {width}x{height} pixels would grow to {shape[0]}x{shape[1]}")
    return cv2.resize(image, shape, interpolation=INTERPOLATION[interpolation])


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central ``size`` x ``size`` square.

    Raises:
        DataError: when the image is smaller than that.
    """
    height, width = image.shape[:2]
    if height < size or width < size:
        raise DataError(f"an image of {width}x{height} pixels is too small for a crop of {size}")
    top, left = int(round((height - size) / 2)), int(round((width - size) / 2))
    return image[top : top + size, left : left + size]


def random_resized_crop(
    image: np.ndarray,
    size: int,
    rng: np.random.Generator,
    area: Tuple[float, float] = (0.08, 1.0),
    aspect: Tuple[float, float] = (3 / 4, 4 / 3),
    interpolation: str = "bilinear",
) -> np.ndarray:
    """A random part of the image, scaled to ``size`` x ``size`` (Szegedy et al., arXiv:1409.4842).

    Its area is a share of the image's, uniform in ``area``; its width over height is
    log-uniform in ``aspect``. After ten misses it is the largest central part that fits.
    """
    left, top, width, height = _random_box(image, rng, area, aspect)
    part = image[top : top + height, left : left + width]
    return cv2.resize(part, (size, size), interpolation=INTERPOLATION[interpolation])


def _random_box(
    image: np.ndarray,
    rng: np.random.Generator,
    area: Tuple[float, float],
    aspect: Tuple[float, float],
) -> Tuple[int, int, int, int]:
    full_height, full_width = image.shape[:2]
    for _ in range(10):
        target = rng.uniform(*area) * full_height * full_width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        width = int(round(math.sqrt(target * ratio)))
        height = int(round(math.sqrt(target / ratio)))
        if 0 < width <= full_width and 0 < height <= full_height:
            left = int(rng.integers(0, full_width - width + 1))
            top = int(rng.integers(0, full_height - height + 1))
            return left, top, width, height
    ratio = min(max(full_width / full_height, aspect[0]), aspect[1])
    width = min(full_width, int(round(full_height * ratio)))
    height = min(full_height, int(round(full_width / ratio)))
    return (full_width - width) // 2, (full_height - height) // 2, width, height


def random_padded_crop(
    image: np.ndarray, size: int, padding: int, rng: np.random.Generator
) -> np.ndarray:
    """A random ``size`` x ``size`` part of the image in a black border (He et al., section 4.2)."""
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
    """Random crop, flip and colour jitter, in this order.

    Args:
        size: edge of the square that comes out, in pixels.
        area: share of the image a resized crop takes; None for a padded crop instead.
        padding: black border in pixels for the padded crop.
        jitter: strength of the colour jitter, 0 for none.
    """

    size: int
    area: Optional[Tuple[float, float]] = (0.08, 1.0)
    padding: int = 0
    flip: bool = True
    jitter: float = 0.0
    interpolation: str = "bilinear"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self.area:
            image = random_resized_crop(
                image, self.size, rng, self.area, interpolation=self.interpolation
            )
        else:
            image = random_padded_crop(image, self.size, self.padding, rng)
        if self.flip:
            image = random_flip(image, rng)
        return color_jitter(image, self.jitter, rng) if self.jitter else image


@dataclass(frozen=True)
class EvalTransform:
    """What a set of weights is tested with: short edge, centre crop; nothing random."""

    preprocess: Preprocess

    def __call__(self, image: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        p = self.preprocess
        if p.resize:
            image = resize_short_edge(image, p.resize, p.interpolation)
        return center_crop(image, p.crop) if p.crop else image


def to_network_layout(image: np.ndarray, order: str) -> np.ndarray:
    """``(H, W, 3)`` BGR to ``(3, H, W)`` in the network's channel order, still uint8.

    Contiguous, so that the worker does the shuffling and not whoever makes a tensor of the batch.
    """
    if order == "RGB":
        image = image[:, :, ::-1]
    return np.ascontiguousarray(image.transpose(2, 0, 1))
