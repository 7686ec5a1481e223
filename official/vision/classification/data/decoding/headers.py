"""What the header of an image says, without decoding it: its size, its depth and which way is up.

Everything here is about bytes that may be hostile: reading them takes time in proportion to the
file's length at most, and nothing is believed that is not checked against it.
"""

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Dict, Iterator, Tuple

from ...errors import DataError
from . import kinds

MAX_SCANS = 200  # of a progressive JPEG; encoders make about ten, and each passes over all pixels
MAX_CHUNKS = 100_000  # of a PNG or WebP
_MAX_TAGS = 1000  # of a TIFF's first directory
CUT_SHORT = "the image is cut short; fetch the file again"

_PNG_START = 8  # bytes before the first chunk of a PNG
_OF_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # its chunks that a still image needs

_JPEG_END = b"\xff\xd9"
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff])")
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame, ITU-T T.81, table B.1
_BASELINE, _PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)

ORIENTATION, COMPRESSION, PHOTOMETRIC = 0x0112, 259, 262  # tags of TIFF 6.0
SAMPLES, PLANES = 277, 284
_WIDTH, _HEIGHT, _BITS, _SUBFILE, _FORMAT, _DNG = 256, 257, 258, 254, 339, 50706
_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # those of the tags that are needed


@dataclass(frozen=True)
class Header:
    """What an image says of itself.

    Args:
        width, height: stored pixels; 0 where only the decoder can tell.
        bits: of a sample.
        orientation: EXIF's, 1 to 8.
        tags: of a TIFF; see ``tiff_tags``.
    """

    width: int
    height: int
    bits: int = 8
    orientation: int = 1
    tags: Tuple[Tuple[int, Tuple[int, ...]], ...] = ()

    @property
    def upright(self) -> Tuple[int, int]:
        """Width and height once it is turned."""
        is_turned = self.orientation >= 5
        return (self.height, self.width) if is_turned else (self.width, self.height)


def header_of(kind: str, data: bytes) -> Header:
    """The header of an image of a kind that ``kind_of`` gives.

    Raises:
        DataError: without the file's name, when it is cut short or is not as its format has it.
    """
    read = _READERS.get(kind)
    try:
        return read(data) if read else Header(0, 0)
    except (struct.error, IndexError):
        raise DataError(CUT_SHORT) from None


def _jpeg(data: bytes) -> Header:
    """From the segments before the first scan, which may hold a thumbnail with its own end mark.

    From the first scan on the end mark cannot occur by chance: entropy-coded 0xff bytes are
    stuffed (ITU-T T.81, B.1.1.5).
    """
    width = height = bits = orientation = 0
    is_progressive = False
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)  # decoders too pass over what is between segments
        if not found:
            raise DataError(CUT_SHORT)
        marker, at = found[1][0], found.end()
        if marker == 0xDA:  # start of scan
            break
        if marker == 0xE1 and not orientation and data[at + 2 : at + 8] == b"Exif\0\0":
            end = at + int.from_bytes(data[at : at + 2], "big")
            orientation = exif_orientation(data[at + 8 : end])
        elif marker in _FRAMES:
            bits, height, width = struct.unpack_from(">BHH", data, at + 2)
            is_progressive = marker in _PROGRESSIVE
            if bits != 8 or not (is_progressive or marker in _BASELINE):
                raise DataError(
                    f"a {'lossless' if bits == 8 else f'{bits}-bit'} JPEG image, which is not "
                    "read; convert it to a JPEG of 8 bits or to PNG"
                )
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:  # those have no length
            at += int.from_bytes(data[at : at + 2], "big")
    if data.rfind(_JPEG_END) < at:
        raise DataError(CUT_SHORT)
    if is_progressive and data.count(b"\xff\xda") > MAX_SCANS:
        raise DataError(f"a JPEG image of more than {MAX_SCANS} scans; save it anew")
    return Header(width, height, bits, orientation or 1)


def _png(data: bytes) -> Header:
    width = height = bits = 0
    orientation = 1
    for name, chunk in _png_chunks(data):
        body = chunk[4:-4]
        if zlib.crc32(body) != int.from_bytes(chunk[-4:], "big"):
            raise DataError("a damaged PNG image: a checksum is wrong; fetch the file again")
        if name == b"CgBI":
            raise DataError("a PNG image in Apple's own form, out of an app; convert it to PNG")
        if not bits:
            if name != b"IHDR":
                raise DataError("a damaged PNG image: it has no header; fetch the file again")
            width, height, bits = struct.unpack_from(">IIB", body, 4)
        if name == b"eXIf":
            orientation = exif_orientation(bytes(body[4:]))
    return Header(width, height, bits, orientation)


def still_png(data: bytes) -> bytes:
    """The same image, without what is only told of it and without an animation's other frames.

    OpenCV 4.11 writes where it may not, and ends by a segmentation fault, when a frame is larger
    than the image.
    """
    chunks = [chunk for name, chunk in _png_chunks(data) if name in _OF_PIXELS]
    return b"".join([data[:_PNG_START], *chunks])


def _png_chunks(data: bytes) -> Iterator[Tuple[bytes, memoryview]]:
    """The name of each chunk, and all of its bytes, from the first to the last one."""
    at = _PNG_START
    for _ in range(MAX_CHUNKS):
        if at + 12 > len(data):
            raise DataError(CUT_SHORT)
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise DataError(CUT_SHORT)
        yield name, memoryview(data)[at:end]
        if name == b"IEND":
            return
        at = end
    raise DataError(f"a PNG image of more than {MAX_CHUNKS:,} chunks; save it anew")


def _webp(data: bytes) -> Header:
    """RFC 9649."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DataError(CUT_SHORT)
    width = height = 0
    orientation, at = 1, 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > end:
            return Header(width, height, 8, orientation)
        name, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + min(length, 1 << 16)]
        if name == b"EXIF":
            orientation = exif_orientation(body[6:] if body[:6] == b"Exif\0\0" else body)
        elif name == b"VP8X":
            width, height = (int.from_bytes(body[k : k + 3], "little") + 1 for k in (4, 7))
        elif name == b"VP8 " and not width:
            width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", body, 6))
        elif name == b"VP8L" and not width:
            packed = int.from_bytes(body[1:5], "little")
            width, height = (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
        at += 8 + length + (length & 1)
    raise DataError(f"a WebP image of more than {MAX_CHUNKS:,} chunks; save it anew")


def _bmp(data: bytes) -> Header:
    if data[14:18] == b"\x0c\0\0\0":
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header(abs(width), abs(height))


def _tiff(data: bytes) -> Header:
    """The first image; cameras' raw files, which begin with a small one, are refused.

    Its orientation is left to the decoders: all of them turn a TIFF upright by themselves.
    """
    tags = tiff_tags(data)
    if _DNG in tags or data[8:10] == b"CR" or tags.get(_SUBFILE, (0,))[0] & 1:
        raise DataError("a camera's raw file, which is not read; convert it to JPEG or PNG")
    try:
        width, height = tags[_WIDTH][0], tags[_HEIGHT][0]
    except (KeyError, IndexError):
        raise DataError("a TIFF image that does not say its size; save it anew") from None
    bits = max(tags.get(_BITS, (1,)), default=1)
    if tags.get(_FORMAT, (1,))[:1] == (3,):
        bits = max(bits, 16)
    return Header(width, height, bits, tags=tuple(tags.items()))


def exif_orientation(data: bytes) -> int:
    """Which way is up, 1 to 8, by an EXIF block, which is a small TIFF; 1 if it does not say."""
    try:
        return _valid_orientation(tiff_tags(data))
    except (DataError, struct.error):
        return 1


def _valid_orientation(tags: Dict[int, Tuple[int, ...]]) -> int:
    value = (tags.get(ORIENTATION) or (1,))[0]
    return value if 1 <= value <= 8 else 1


def tiff_tags(data: bytes) -> Dict[int, Tuple[int, ...]]:
    """The tags of the first directory that are whole numbers, with their first values.

    Raises:
        DataError, struct.error: when there is no such directory.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise DataError("not a TIFF image")
    is_big = data[2:4] in (b"+\0", b"\0+")
    offset, count, value, entry = ("Q", "Q", 8, 20) if is_big else ("I", "H", 4, 12)
    (at,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
    (total,) = struct.unpack_from(order + count, data, at)
    at += struct.calcsize(count)
    tags: Dict[int, Tuple[int, ...]] = {}
    for place in range(at, at + min(total, _MAX_TAGS) * entry, entry):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        (number,) = struct.unpack_from(order + offset, data, place + 4)
        if kind not in _TYPES or not number:
            continue
        layout = order + min(number, 8) * _TYPES[kind]
        start = place + entry - value
        if number * struct.calcsize("=" + _TYPES[kind]) > value:
            (start,) = struct.unpack_from(order + offset, data, start)
        tags.setdefault(tag, struct.unpack_from(layout, data, start))
    return tags


_READERS = {
    kinds.JPEG: _jpeg,
    kinds.PNG: _png,
    kinds.WEBP: _webp,
    kinds.BMP: _bmp,
    kinds.TIFF: _tiff,
}
