"""Reads lists of structs from a MATLAB file, which is what ImageNet's development kit has.

The format is "MAT-File Format", MathWorks, of level 5: elements with a type and a length, which may
hold others, each of them compressed or not.
"""

import struct
import zlib
from typing import Any, Dict, Iterator, List, Tuple

_HEADER = 128
_COMPRESSED, _MATRIX = 15, 14
_STRUCT, _CHAR = 2, 4  # classes of arrays
_MAX_UNPACKED = 1 << 26
_MAX_STRUCTS = 100_000
_NUMBERS = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
_TEXT = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le"}


class MatError(Exception):
    """A file that is damaged or of another form."""


def structs(data: bytes, name: str) -> List[Dict[str, Any]]:
    """The elements of the array of structs of that name: numbers and text by field, no arrays.

    Raises:
        MatError: when there is none, or it is damaged.
    """
    if len(data) < _HEADER or data[126:128] != b"IM":
        raise MatError("it is no MATLAB file of level 5 with the low byte first")
    try:
        for kind, content in _elements(data[_HEADER:]):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_unpacked(content)))
            if kind == _MATRIX:
                parts = list(_elements(content))
                if parts[2][1].decode("latin-1") == name and parts[0][1][0] == _STRUCT:
                    return _structs(parts)
    except (struct.error, zlib.error, IndexError, StopIteration, UnicodeDecodeError) as error:
        raise MatError(f"it is damaged ({type(error).__name__})") from None
    raise MatError(f"it has no array of structs {name}")


def _unpacked(content: bytes) -> bytes:
    unpacked = zlib.decompressobj().decompress(content, _MAX_UNPACKED)
    if len(unpacked) == _MAX_UNPACKED:
        raise MatError("it unpacks to more than was expected")
    return unpacked


def _elements(data: bytes) -> Iterator[Tuple[int, bytes]]:
    """Type and content of each element, which starts on a multiple of eight bytes."""
    at = 0
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if kind >> 16:  # both in four bytes, and the content in the next four
            yield kind & 0xFFFF, data[at + 4 : at + 4 + min(4, kind >> 16)]
            at += 8
            continue
        if at + 8 + length > len(data):
            raise MatError("it is cut short")
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length
        if kind != _COMPRESSED:
            at += -length % 8


def _structs(parts: List[Tuple[int, bytes]]) -> List[Dict[str, Any]]:
    """See section "Structure": flags, dimensions, name, length of a field's name, names, values."""
    width = struct.unpack("<i", parts[3][1][:4])[0]
    if not 0 < width < 1000:
        raise MatError("its fields have no names")
    names = parts[4][1]
    fields = [
        names[at : at + width].partition(b"\0")[0].decode("latin-1")
        for at in range(0, len(names), width)
    ]
    values = parts[5:]
    if not fields or len(values) % len(fields) or len(values) > _MAX_STRUCTS * len(fields):
        raise MatError("its fields and values do not fit")
    return [
        {field: _value(values[start + place][1]) for place, field in enumerate(fields)}
        for start in range(0, len(values), len(fields))
    ]


def _value(content: bytes) -> Any:
    """A number, a text, or None for anything else."""
    parts = list(_elements(content))
    if len(parts) < 4:
        return None
    kind, raw = parts[3]
    if parts[0][1][0] == _CHAR and kind in _TEXT:
        return raw.decode(_TEXT[kind])
    if kind in _NUMBERS and len(raw) == struct.calcsize(_NUMBERS[kind]):
        return struct.unpack("<" + _NUMBERS[kind], raw)[0]
    return None
