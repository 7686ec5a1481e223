"""Reading one image file."""

import re
from pathlib import Path
from typing import Union

import cv2
import numpy as np

from ..errors import DataError

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"


def read_image(path: Union[str, Path]) -> np.ndarray:
    """Decode a file to ``(H, W, 3)`` uint8, BGR, turned upright by its EXIF tag.

    Raises:
        DataError: naming the file, when it is missing, empty, cut short or no image.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - making a Path takes longer than reading
            data = file.read()
    except FileNotFoundError:
        raise DataError(f"{path}: no such image") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> np.ndarray:
    """As ``read_image``, of what the file ``name`` holds."""
    if not data:
        raise DataError(f"{name}: the file is empty")
    if _is_cut_short(data):
        raise DataError(f"{name}: the image is cut short; fetch the file again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # among others, more pixels than OpenCV allows
        image = None
    if image is None:
        raise DataError(f"{name}: not an image that OpenCV can read")
    return image


def _is_cut_short(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end.

    OpenCV 4.11 refuses these in memory, but without a reason; other decoders, and its own from a
    file, fill the missing part of a JPEG with grey.
    """
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < _jpeg_scan_start(data)
    if data.startswith(_PNG_START):
        return _PNG_END not in data
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Where the first scan begins, past headers that may hold a thumbnail with its own end mark.

    From here on the end mark cannot occur by chance: entropy-coded 0xff bytes are stuffed
    (ITU-T T.81, B.1.1.5).
    """
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)  # decoders too pass over what is between segments
        if not found:
            return len(data)
        marker, at = found[1][0], found.end()
        if marker == 0xDA:  # start of scan
            return at
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:  # those have no length
            at += int.from_bytes(data[at : at + 2], "big")
