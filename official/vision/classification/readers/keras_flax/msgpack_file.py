"""Reads what flax writes: ``flax_model.msgpack`` of Hugging Face and checkpoints of its own.

The format is MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md). In flax
(``flax/serialization.py``) an array is an extension of type 1, whose content is a MessagePack list
of the shape, the dtype's name and the bytes in C order. Arrays are looked at where they lie, so
that reading costs no more than the file; other extensions are passed over.

What a hostile file can cost is bounded: each length is checked against what remains, values are
counted, and nesting is limited.
"""

import functools
import math
import struct
from typing import Dict, List

from ...errors import WeightsError
from ..contents import Contents, Fault
from ..foreign import Foreign
from ..pickle_data import shown
from ..stored_numbers import ITEM_BYTES, MAX_DIMS, numpy_can_hold
from . import InOnePiece

MAX_VALUES = 200_000  # a training state of the largest network here has some thousands
MAX_DEPTH = 32
MAX_TEXT_BYTES = 1 << 16

_ARRAY = 1  # the type of extension
_CODES = {
    f"{kind}{8 * size}": f"{kind[0]}{size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)
}
_CODES.update({"float16": "f2", "float32": "f4", "float64": "f8", "bfloat16": "bf16", "bool": "b1"})
# What follows the first byte: the width of a number, or of a length.
_NUMBERS = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_NUMBERS.update({0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"})
_WIDTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` starts with a map whose first key is a name."""
    if head[:1] == b"\xde":
        return 0xA1 <= (head[3:4] or b"\0")[0] <= 0xBF
    return 0x81 <= (head[:1] or b"\0")[0] <= 0x8F and 0xA1 <= (head[1:2] or b"\0")[0] <= 0xBF


def read(data: bytes, path: str) -> Contents:
    """The maps as dicts. What flax keeps apart, parameters and statistics, is brought together."""
    refuse = functools.partial(_refusal, path)
    reader = _Reader(memoryview(data))
    try:
        value = reader.value(0)
        if reader.at != len(data):
            raise Fault(f"{len(data) - reader.at:,} bytes follow its end")
        return Contents(_together(value), refuse, len(data))
    except Fault as fault:
        raise refuse(fault) from fault


def _refusal(path: str, fault: Fault) -> WeightsError:
    return WeightsError(
        f"{path}: cannot be read as a msgpack file of flax: {fault}. "
        "Download it again, or save it anew with flax.serialization.to_bytes."
    )


def _together(value: object) -> object:
    """``{"params": {...}, "batch_stats": {...}}`` as one tree."""
    if not isinstance(value, dict):
        return value
    params, statistics = value.get("params"), value.get("batch_stats")
    if not isinstance(params, dict) or not isinstance(statistics, dict):
        return value
    rest = {name: entry for name, entry in value.items() if name not in ("params", "batch_stats")}
    return {"params": _merged(params, statistics), **rest}


def _merged(one: Dict[str, object], other: Dict[str, object]) -> Dict[str, object]:
    found = dict(one)
    for name, value in other.items():
        mine = found.get(name)
        if isinstance(mine, dict) and isinstance(value, dict):
            found[name] = _merged(mine, value)
        elif name in found:
            raise Fault(f"{shown(name)} is a parameter and a statistic")
        else:
            found[name] = value
    return found


class _Reader:
    def __init__(self, data: memoryview, may_extend: bool = True) -> None:
        self.at = 0
        self.count = 0
        self._data = data
        self._may_extend = may_extend  # an array has no arrays in it

    def value(self, depth: int) -> object:
        """The value that starts at ``at``, which moves on to its end."""
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise Fault(f"it has more than {MAX_VALUES:,} values, or more than {MAX_DEPTH} deep")
        code = self._uint(1)
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            form = _NUMBERS[code]
            return struct.unpack(form, self._slice(struct.calcsize(form)))[0]
        if code in _EXTENSIONS:
            return self._extension(self._uint(_EXTENSIONS[code]))
        if code in _FIXED_EXTENSIONS:
            return self._extension(_FIXED_EXTENSIONS[code])
        return self._sized(code, depth)

    def _sized(self, code: int, depth: int) -> object:
        length = (
            self._uint(_WIDTHS[code]) if code in _WIDTHS else code & (31 if code >= 0xA0 else 15)
        )
        if code in (0xDE, 0xDF) or 0x80 <= code <= 0x8F:
            return self._map(length, depth)
        if code in (0xDC, 0xDD) or 0x90 <= code <= 0x9F:
            return self._list(length, depth)
        if code in (0xD9, 0xDA, 0xDB) or 0xA0 <= code <= 0xBF:
            return self._text(length)
        if code in (0xC4, 0xC5, 0xC6):
            return self._slice(length)
        raise Fault(f"0x{code:02x} has no meaning (at byte {self.at - 1:,})")

    def _map(self, count: int, depth: int) -> Dict[str, object]:
        found: Dict[str, object] = {}
        for _ in range(self._possible(count)):
            key = self.value(depth + 1)
            if not isinstance(key, (str, int)):
                raise Fault("a key is no text")
            if str(key) in found:
                raise Fault(f"the key {shown(str(key))} comes twice")
            found[str(key)] = self.value(depth + 1)
        return found

    def _list(self, count: int, depth: int) -> List[object]:
        return [self.value(depth + 1) for _ in range(self._possible(count))]

    def _possible(self, count: int) -> int:
        if count > len(self._data) - self.at:  # each takes a byte
            raise Fault(
                f"{count:,} values are announced and {len(self._data) - self.at:,} bytes left"
            )
        return count

    def _text(self, length: int) -> str:
        if length > MAX_TEXT_BYTES:
            raise Fault(f"a text has {length:,} bytes")
        return str(self._slice(length), "utf-8", "replace")

    def _extension(self, length: int) -> object:
        kind = self._uint(1)
        body = self._slice(length)
        if kind != _ARRAY or not self._may_extend:
            return Foreign(f"an extension of type {kind}")
        inner = _Reader(body, may_extend=False)
        parts = inner.value(0)
        self.count += inner.count
        if not isinstance(parts, list) or len(parts) != 3 or inner.at != len(body):
            raise Fault("an array is not as flax writes it")
        return _array(*parts)

    def _uint(self, width: int) -> int:
        return int.from_bytes(self._slice(width), "big")

    def _slice(self, length: int) -> memoryview:
        left = len(self._data) - self.at
        if length > left:
            raise Fault(f"{length:,} bytes are needed at byte {self.at:,} and {left:,} are left")
        self.at += length
        return self._data[self.at - length : self.at]


def _array(shape: object, dtype: object, raw: object) -> object:
    sizes = tuple(shape) if isinstance(shape, list) else (None,)
    if len(sizes) > MAX_DIMS or not all(type(n) is int and 0 <= n < 2**48 for n in sizes):
        raise Fault("an array's shape is none")
    code = _CODES.get(dtype) if isinstance(dtype, str) else None
    if code is None or not isinstance(raw, memoryview):
        return Foreign("an array", f"its numbers are of type {shown(str(dtype))}")
    if not numpy_can_hold(sizes, code) or math.prod(sizes) * ITEM_BYTES[code] != len(raw):
        raise Fault(f"an array of shape {sizes} has {len(raw):,} bytes")
    return InOnePiece(raw, code, sizes)
