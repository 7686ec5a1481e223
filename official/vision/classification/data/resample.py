"""Pillow's resizing of colour images, several times as fast (``native/resample.cpp``).

Weights that were trained on Pillow's images want them, and a loader spends more time on Pillow's
resizing than on decoding. The bytes are the same; what this does not do is left to Pillow.
"""

import ctypes
from functools import lru_cache
from typing import Optional, Tuple

import numpy as np

from ..ops.build import KernelsUnavailable
from .native import native_library

_FILTERS = {"bilinear": 1, "bicubic": 2}

_prepared: Optional["Resampler"] = None


class Resampler:
    """Resizes images of shape (height, width, 3), uint8. Python's lock is free meanwhile.

    Raises:
        KernelsUnavailable: without a compiler, or where Pillow's bytes are others.
    """

    def __init__(self) -> None:
        self._resample = native_library().resample
        self._resample.restype = ctypes.c_bool
        numbers = [ctypes.c_int] * 3
        pointer = ctypes.c_void_p
        self._resample.argtypes = [pointer, *numbers[:2], ctypes.c_ssize_t, *numbers, pointer]
        if not self._agrees():
            raise KernelsUnavailable("images are resized by Pillow, whose bytes are others")

    def __call__(
        self, image: np.ndarray, shape: Tuple[int, int], interpolation: str
    ) -> Optional[np.ndarray]:
        """The image at ``shape``, width and height; None for what is left to Pillow."""
        height, width = image.shape[:2]
        if interpolation not in _FILTERS or image.strides[1:] != (3, 1):
            return None
        if height > 100 * width:  # Pillow has another order of the two directions for strips
            return None
        out = np.empty((shape[1], shape[0], 3), np.uint8)
        source = (image.ctypes.data, width, height, image.strides[0])
        done = self._resample(*source, _FILTERS[interpolation], *shape, out.ctypes.data)
        return out if done else None

    def _agrees(self) -> bool:
        from PIL import Image

        noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
        for interpolation in _FILTERS:
            for shape in ((19, 90), (60, 20)):
                found = self(noise, shape, interpolation)
                method = Image.Resampling[interpolation.upper()]
                expected = np.asarray(Image.fromarray(noise).resize(shape, method))
                if found is None or not np.array_equal(found, expected):
                    return False
        return True


@lru_cache(maxsize=None)
def prepare() -> None:
    """Have it from now on, if it can be had; it pays where there are many images."""
    global _prepared
    try:
        _prepared = Resampler()
    except (KernelsUnavailable, ImportError):
        _prepared = None


def prepared() -> Optional[Resampler]:
    """It, where somebody has asked for it in this process."""
    return _prepared
