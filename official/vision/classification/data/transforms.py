"""From a decoded image to what the network is fed: ``(H, W, 3)`` uint8 in, the same out."""

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


def resize(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Scale to what ``preprocess.resize`` says, with its interpolation, library and rounding.

    Raises:
        DataError: when the long edge would be out of all proportion.
    """
    if preprocess.resize is None:
        return image
    old_height, old_width = image.shape[:2]
    height, width = _new_size(image, preprocess)
    if (height, width) == (old_height, old_width):
        return image
    if height * width > MAX_PIXELS:
        raise DataError(
            f"an image of {old_width}x{old_height} pixels would grow to {width}x{height}"
        )
    return scaled(image, (width, height), preprocess.interpolation, preprocess.library)


def _new_size(image: np.ndarray, preprocess: Preprocess) -> Tuple[int, int]:
    """Height and width after resizing."""
    if isinstance(preprocess.resize, tuple):
        return preprocess.resize
    size, (height, width) = preprocess.resize, image.shape[:2]
    to_pixels = int if preprocess.rounding == "down" else round
    if height < width:
        return size, to_pixels(size * width / height)
    return to_pixels(size * height / width), size


def center_crop(image: np.ndarray, size: int, rounding: str = "down") -> np.ndarray:
    """The central ``size`` x ``size`` square; for ``rounding`` see Preprocess.

    Raises:
        DataError: when the image is smaller than that.
    """
    height, width = image.shape[:2]
    if height < size or width < size:
        raise DataError(f"an image of {width}x{height} pixels is too small for a crop of {size}")
    to_pixels = round if rounding == "down" else int
    top, left = to_pixels((height - size) / 2), to_pixels((width - size) / 2)
    return image[top : top + size, left : left + size]


def scaled(
    image: np.ndarray, shape: Tuple[int, int], interpolation: str, library: str
) -> np.ndarray:
    """The image at ``shape``, width and height, as ``library`` computes it."""
    if library == "cv2":
        return cv2.resize(image, shape, interpolation=INTERPOLATION[interpolation])
    from PIL import Image  # not needed by most weights, and users of the hub may lack it

    image = np.ascontiguousarray(image)  # far slower if left to Pillow
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling[interpolation.upper()]))


@dataclass(frozen=True)
class EvalTransform:
    """What a set of weights is tested with: resize, centre crop; nothing random."""

    preprocess: Preprocess

    def __call__(self, image: np.ndarray, rng: Optional[np.random.Generator] = None) -> np.ndarray:
        p = self.preprocess
        image = resize(image, p)
        return center_crop(image, p.crop, p.rounding) if p.crop else image


def to_network_layout(image: np.ndarray, order: str) -> np.ndarray:
    """``(H, W, 3)`` BGR to ``(3, H, W)`` in the network's channel order, still uint8.

    In memory it stays ``(H, W, 3)``, contiguous, so that the worker does the shuffling and not
    whoever makes a tensor of the batch.
    """
    image = np.ascontiguousarray(image)
    if order == "RGB":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # ten times as fast as numpy's [:, :, ::-1]
    return image.transpose(2, 0, 1)
