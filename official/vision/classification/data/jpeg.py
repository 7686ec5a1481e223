"""Decoding a part of a JPEG file: what a crop needs and not the rest (``native/jpeg.cpp``).

The library is the libjpeg-turbo that comes with Pillow, whose version is that in OpenCV's wheel:
the pixels are the same, to the bit, as those of a crop of the whole image. A little C++ that calls
it is compiled at the first use. Where that is not possible OpenCV decodes whole images.
"""

import ctypes
import ctypes.util
import logging
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import List, Optional, Tuple

import cv2
import numpy as np

from ..ops.build import KernelsUnavailable, compiled

_SOURCES = Path(__file__).parent / "native"
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-ldl")
DIVISORS = (8, 4, 2, 1)  # by which a JPEG file can be decoded to a smaller image

Box = Tuple[int, int, int, int]  # left, top, width, height in pixels

logger = logging.getLogger(__name__)


class PartDecoder:
    """Decodes parts of plain JPEG files: one or three colours of 8 bits, not damaged.

    Python's lock is free while it decodes.

    Raises:
        KernelsUnavailable: without a compiler, or a libjpeg-turbo that gives OpenCV's pixels.
    """

    def __init__(self) -> None:
        path = compiled("jpeg", _SOURCES, _FLAGS)
        try:
            holding, releasing = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
            self._shape, self._part = holding.jpeg_shape, releasing.jpeg_part
        except (OSError, AttributeError) as error:
            raise KernelsUnavailable(f"{path}: {error}") from None
        self._part.restype = holding.jpeg_open.restype = ctypes.c_bool
        self._shape.restype = ctypes.c_uint32
        self._shape.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        numbers = [ctypes.c_int] * 5
        self._part.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *numbers, ctypes.c_void_p]
        differ = ""
        for library in _libraries():
            if holding.jpeg_open(library.encode()):
                if self._agrees():
                    self.library = library
                    return
                differ = f"; {library} does not give OpenCV's pixels"
        raise KernelsUnavailable(
            f"no libjpeg-turbo (libjpeg.so.62), as Pillow's wheels have{differ}"
        )

    def shape(self, data: bytes) -> Optional[Tuple[int, int]]:
        """Width and height of the upright image; None for what is no plain JPEG file."""
        found = self._shape(data, len(data))
        return (found >> 16, found & 0xFFFF) if found else None

    def part(self, data: bytes, box: Box, divisor: int = 1) -> Optional[np.ndarray]:
        """A box of the upright image as ``(height, width, 3)`` uint8, BGR.

        Args:
            divisor: 1, 2, 4 or 8: decode to an image of that fraction of the edges, rounded up, in
                whose pixels the box is. The mean of a few pixels comes out as one of them.

        Returns:
            None for what is no plain JPEG file, which is for ``decode_image``.
        """
        out = np.empty((box[3], box[2], 3), np.uint8)
        found = self._part(data, len(data), divisor, *box, out.ctypes.data)
        return out if found else None

    def _agrees(self) -> bool:
        """Whether pixels are those of OpenCV, which the tests try on many more files."""
        noise = np.random.default_rng(0).integers(0, 256, (75, 93, 3), np.uint8)
        data = cv2.imencode(".jpg", cv2.blur(noise, (3, 3)))[1].tobytes()
        whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
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
