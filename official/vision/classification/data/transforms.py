"""From a decoded image to what the network is fed: ``(H, W, 3)`` uint8 in, the same out."""

from dataclasses import dataclass
from typing import Optional, Tuple, Union

import cv2
import numpy as np

from ..errors import DataError
from ..preprocess import Preprocess
from .resample import prepared

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
    return scaled(image, (width, height), preprocess.interpolation, preprocess.library)


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


def scaled(
    image: np.ndarray, shape: Tuple[int, int], interpolation: str, library: str
) -> np.ndarray:
    """The image at ``shape``, width and height, as ``library`` computes it."""
    if library == "cv2":
        return cv2.resize(image, shape, interpolation=INTERPOLATION[interpolation])
    resampler = prepared()
    found = resampler(image, shape, interpolation) if resampler else None
    if found is not None:
        return found
    from PIL import Image  # not needed by most weights, and users of the hub may lack it

    image = np.ascontiguousarray(image)  # far slower if left to Pillow
    return np.asarray(Image.fromarray(image).resize(shape, Image.Resampling[interpolation.upper()]))


@dataclass(frozen=True)
class EvalTransform:
    """What a set of weights is tested with: resize, centre crop; nothing random."""

    preprocess: Preprocess

    @property
    def library(self) -> str:
        """Whose scaling it is."""
        return self.preprocess.library

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
        box = (top / height, left / width, (top + p.crop) / height, (left + p.crop) / width)
        return center_crop(image, p.crop, p.rounding), box


def to_network_layout(image: np.ndarray, order: str) -> np.ndarray:
    """``(H, W, 3)`` BGR to ``(3, H, W)`` in the network's channel order, still uint8.

    In memory it stays ``(H, W, 3)``, contiguous, so that the worker does the shuffling and not
    whoever makes a tensor of the batch.
    """
    image = np.ascontiguousarray(image)
    if order == "RGB":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # ten times as fast as numpy's [:, :, ::-1]
    return image.transpose(2, 0, 1)
