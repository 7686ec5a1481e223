"""Decoding a part of a JPEG file: what a crop needs and not the rest (``native/jpeg.cpp``).

The library is the libjpeg-turbo that comes with Pillow: the pixels are the same, to the bit, as
those of a crop of the whole image. A little C++ that calls it is compiled at the first use. Where
that is not possible whole images are decoded. How large a file is and which way is up is said by
the one reader of headers, which ``check_image`` asks first.
"""

import ctypes
import ctypes.util
import logging
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, List, Optional, Tuple

import cv2
import numpy as np

from ..ops.build import KernelsUnavailable
from .decoding.pixels import MAX_PIXELS
from .image import decode_image
from .native import native_library
from .sampler import Key

DIVISORS = (8, 4, 2, 1)  # by which a JPEG file can be decoded to a smaller image

Box = Tuple[int, int, int, int]  # left, top, width, height in pixels

logger = logging.getLogger(__name__)


class PartDecoder:
    """Decodes parts of plain JPEG files: one or three colours of 8 bits, not damaged.

    Python's lock is free while it decodes.

    Raises:
        KernelsUnavailable: without a compiler, or a libjpeg-turbo of which the pixels are the same.
    """

    def __init__(self) -> None:
        native = native_library()
        self._part, self._draw, use = native.jpeg_part, native.random_crop, native.jpeg_open
        self._part.restype = self._draw.restype = use.restype = ctypes.c_bool
        numbers: List[Any] = [ctypes.c_int] * 6
        self._part.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *numbers, ctypes.c_void_p]
        doubles: List[Any] = [ctypes.c_double] * 4
        shape = [*numbers[:2], ctypes.c_int64]
        drawing = [ctypes.c_void_p, ctypes.c_size_t, *doubles, ctypes.c_bool, ctypes.c_void_p]
        self._draw.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *shape, *drawing]
        self.draws = self._draws_alike()
        differ = ""
        for name in _libraries():
            if use(name.encode()):
                if self._agrees():
                    self.library = name
                    return
                differ = f"; {name} does not give the same pixels"
        raise KernelsUnavailable(
            f"no libjpeg-turbo (libjpeg.so.62), as Pillow's wheels have{differ}"
        )

    def part(
        self, data: bytes, box: Box, orientation: int = 1, divisor: int = 1
    ) -> Optional[np.ndarray]:
        """A box of the upright image as ``(height, width, 3)`` uint8, BGR.

        Args:
            data: a file that ``check_image`` has passed.
            orientation: of its header, EXIF's.
            divisor: 1, 2, 4 or 8: decode to an image of that fraction of the edges, rounded up, in
                whose pixels the box is. The mean of a few pixels comes out as one of them.

        Returns:
            None for what is no plain JPEG file, which is for ``decode_image``.
        """
        out = np.empty((box[3], box[2], 3), np.uint8)
        found = self._part(data, len(data), orientation, divisor, *box, out.ctypes.data)
        return out if found else None

    def draw(
        self,
        data: bytes,
        shape: Optional[Tuple[int, int]],
        key: Key,
        area: Tuple[float, float],
        aspect: Tuple[float, float],
        flips: bool = True,
    ) -> Optional[Tuple[Box, bool]]:
        """What ``random_box`` and then ``random_flip`` of ``augment.py`` draw, to the last bit.

        Args:
            shape: width and height of the upright image; None to read them from ``data``.
            key: of the generator.

        Returns:
            the box and whether it is mirrored; None without a shape, where ``data`` is not a plain
            JPEG file that says nothing of which way is up: ``check_image`` is for these.
        """
        words = (ctypes.c_uint32 * (2 * len(key)))()
        count = 0
        for number in key:  # as numpy cuts them up
            words[count] = number & 0xFFFFFFFF
            count += 1
            if number >> 32:
                words[count] = number >> 32
                count += 1
        out = (ctypes.c_int * 5)()
        width, height = shape or (0, 0)
        numbers = (width, height, MAX_PIXELS, words, count, *area, *aspect, flips, out)
        if not self._draw(data, len(data), *numbers):
            return None
        left, top, width, height, mirrored = out
        return (left, top, width, height), bool(mirrored)

    def _draws_alike(self) -> bool:
        """Whether numpy draws these numbers, which other versions of it might not."""
        for key in ((0, 1, 2, 3), (1 << 40, 1, 89, 1281166, 2)):
            rng = np.random.Generator(np.random.PCG64(key))
            rng.random(2)
            left, top = rng.integers(0, 900 - 636 + 1), rng.integers(0, 900 - 636 + 1)
            expected = (int(left), int(top), 636, 636), bool(rng.random() < 0.5)
            if self.draw(b"", (900, 900), key, (0.5, 0.5), (1.0, 1.0)) != expected:
                return False
        return True

    def _agrees(self) -> bool:
        """Whether pixels are those of the whole image; the tests try it on many more files."""
        noise = np.random.default_rng(0).integers(0, 256, (75, 93, 3), np.uint8)
        data = cv2.imencode(".jpg", cv2.blur(noise, (3, 3)))[1].tobytes()
        whole = decode_image(data, "noise")
        part = self.part(data, (33, 21, 40, 30))
        return part is not None and np.array_equal(part, whole[21:51, 33:73])


@lru_cache(maxsize=None)
def part_decoder() -> Optional[PartDecoder]:
    """The decoder of parts, or None, and a remark, where there is none."""
    try:
        return PartDecoder()
    except KernelsUnavailable as reason:
        logger.warning("JPEG files are decoded whole, which takes longer: %s", reason)
        return None


def _libraries() -> List[str]:
    """Where libjpeg-turbo may be: beside Pillow first, whose version is known."""
    found: List[str] = []
    pillow = find_spec("PIL")
    if pillow and pillow.origin:
        folder = Path(pillow.origin).parents[1]
        found += sorted(map(str, folder.glob("[Pp]illow.libs/libjpeg-*.so.62*")))
    system = ctypes.util.find_library("jpeg")
    return found + ([system] if system else [])
