"""Reads what Keras writes as HDF5: ``.h5``, ``.weights.h5`` and the latter within ``.keras``.

The layout is the HDF Group's "HDF5 File Format Specification", of which this reads what h5py
writes unless it is asked for something newer: superblock version 0, groups that are a B-tree of
names, object headers of version 1, and data sets whose numbers lie in one piece. Whatever else a
file may ask of the HDF5 library is not there at all: other files, filters and their plug-ins,
virtual data sets. So there is nothing to run, nothing is copied, and no C library sees the file.

What a hostile file can cost is bounded: every node, header and heap is entered once, there are at
most MAX_OBJECTS of them, and a data set lies within the file.
"""

import functools
import math
import struct
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

import numpy as np

from ...errors import WeightsError
from ..contents import Contents, Fault
from ..foreign import Foreign
from ..pickle_data import shown
from ..stored_numbers import ITEM_BYTES, MAX_DIMS, numpy_can_hold
from . import InOnePiece

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_OBJECTS = 50_000  # Keras's ResNet-152 has 2,500: three groups to each of its layers
MAX_MESSAGES = 1_000  # of one object; the layer names of a network take some tens
MAX_DEPTH = 16
MAX_NAME_BYTES = 256
_NOWHERE = 2**64 - 1
_OPTIMIZER = "optimizer"  # whose group keeps its name
_VARIABLES = "vars"  # Keras's group of a layer's variables, which are called 0, 1, 2, …

# Types of messages
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _ATTRIBUTE, _CONTINUED, _SYMBOLS = 1, 3, 7, 8, 12, 16, 17
_NEW_LINKS = (2, 6)  # groups of the newer form
_INTEGER, _FLOAT, _TEXT, _ANY_LENGTH = 0, 1, 3, 9  # classes of types
_EXPONENT_BITS = {2: 5, 4: 8, 8: 11}  # of IEEE 754's floats by their bytes

_ENTRY = struct.Struct("<QQI4x16x")  # of a symbol table: name, header, what the scratch is for


class _Header(NamedTuple):
    """The messages of an object that matter here."""

    messages: List[Tuple[int, memoryview]]

    def first(self, kind: int) -> Optional[memoryview]:
        return next((body for found, body in self.messages if found == kind), None)


class _Group(Dict[str, object]):
    """A group. ``layer`` is the layer whose variables are in it, if any."""

    layer: Optional[str] = None


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is HDF5."""
    return head.startswith(SIGNATURE)


def read(data: bytes, path: str) -> Contents:
    """The groups as dicts. Those of one layer's variables have the layer's name."""
    return contents(memoryview(data), path, len(data))


def contents(data: memoryview, path: str, size: int) -> Contents:
    """The same of a part of a file that has ``size`` bytes."""
    refuse = functools.partial(_refusal, path)
    try:
        return Contents(_Reader(data).read(), refuse, size)
    except Fault as fault:
        raise refuse(fault) from fault


def _refusal(path: str, fault: Fault) -> WeightsError:
    way_out = "Save it anew" if fault.intact else "Download it again, or save it anew"
    return WeightsError(
        f"{path}: cannot be read as an HDF5 file of Keras: {fault}. "
        f"{way_out} in Keras with model.save_weights('name.weights.h5')."
    )


class _Reader:
    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._entered: Set[int] = set()

    def read(self) -> Dict[str, object]:
        versions = self._piece(8, 7)
        if versions[0] in (2, 3):
            raise Fault("it is of a newer layout of HDF5 than Keras writes", intact=True)
        if versions[0] > 1 or (versions[5], versions[6]) != (8, 8):
            raise Fault("its superblock is damaged")
        root_at = 56 + 4 * versions[0]  # version 1 has four bytes more
        _, header, _ = _ENTRY.unpack(self._piece(root_at, _ENTRY.size))
        found = self._object(self._header(header), 0)
        if not isinstance(found, dict):
            raise Fault("its root is no group")
        return found

    def _piece(self, at: int, length: int) -> memoryview:
        if at + length > len(self._data):
            raise Fault(f"{length:,} bytes are needed at byte {at:,}, which go past the end")
        return self._data[at : at + length]

    def _number(self, at: int, width: int) -> int:
        return int.from_bytes(self._piece(at, width), "little")

    def _enter(self, at: int) -> None:
        """Note that what is at ``at`` is read, once."""
        if at in self._entered:
            raise Fault(f"what is at byte {at:,} is part of two things, or of itself")
        if len(self._entered) >= MAX_OBJECTS:
            raise Fault(f"it has more than {MAX_OBJECTS:,} parts")
        self._entered.add(at)

    def _object(self, header: _Header, depth: int) -> object:
        """A group as a dict, a data set as a tensor, or why it cannot be had."""
        if depth > MAX_DEPTH:
            raise Fault(f"its groups are nested more than {MAX_DEPTH} deep")
        symbols = header.first(_SYMBOLS)
        if symbols is not None:
            return self._group(symbols, depth)
        if any(kind in _NEW_LINKS for kind, _ in header.messages):
            raise Fault("its groups are of a newer form than Keras writes", intact=True)
        return self._dataset(header)

    def _header(self, at: int) -> _Header:
        """Version, 0, count of messages, references, size of the first block; then that."""
        self._enter(at)
        if bytes(self._piece(at, 16)[:4]) == b"OHDR":
            raise Fault("it is of a newer layout of HDF5 than Keras writes", intact=True)
        if self._data[at] != 1:
            raise Fault(f"an object at byte {at:,} is damaged")
        blocks = [self._piece(at + 16, self._number(at + 8, 4))]
        messages: List[Tuple[int, memoryview]] = []
        for block in blocks:  # which grows
            while len(block) >= 8:
                kind, length = struct.unpack_from("<HH", block)
                if 8 + length > len(block):
                    raise Fault("a message goes past its block")
                body, block = block[8 : 8 + length], block[8 + length :]
                messages.append((kind, body))
                if len(messages) > MAX_MESSAGES:
                    raise Fault(f"an object has more than {MAX_MESSAGES:,} messages")
                if kind == _CONTINUED:
                    start, size = _unpacked("<QQ", body)
                    self._enter(start)
                    blocks.append(self._piece(start, size))
        return _Header(messages)

    def _group(self, symbols: memoryview, depth: int) -> "_Group":
        """Its members by name. In place of ``layers/conv2d_3/vars/0``, with the attribute
        "name" at ``vars``, there is ``layers/conv2_block1_0_conv/0``.
        """
        tree, heap = _unpacked("<QQ", symbols)
        self._enter(heap)
        if self._piece(heap, 32)[:4] != b"HEAP":
            raise Fault("the names of a group are damaged")
        names = self._piece(self._number(heap + 24, 8), self._number(heap + 8, 8))
        found = _Group()
        for name_at, header_at in self._symbols(tree, 0):
            name, header = _text_at(names, name_at), self._header(header_at)
            value = self._object(header, depth + 1)
            inner = {name: value}
            if isinstance(value, _Group) and name == _VARIABLES and value:
                found.layer, inner = self._layer(header), value
            elif isinstance(value, _Group) and value.layer and name != _OPTIMIZER:
                inner = {value.layer: value}
            for key, entry in inner.items():
                if key in found:
                    raise Fault(f"the name {shown(key)} comes twice in a group")
                found[key] = entry
        return found

    def _symbols(self, at: int, depth: int) -> Iterator[Tuple[int, int]]:
        """Where the name and the header of each member of a group are, but for links."""
        if depth > MAX_DEPTH:
            raise Fault("the B-tree of a group is too deep")
        self._enter(at)
        signature = bytes(self._piece(at, 8)[:4])
        count = self._number(at + 6, 2)
        if signature == b"SNOD":
            for index in range(count):
                entry = self._piece(at + 8 + index * _ENTRY.size, _ENTRY.size)
                name, header, cached = _ENTRY.unpack(entry)
                if cached != 2:  # a link by name, which may lead anywhere
                    yield name, header
        elif signature == b"TREE" and self._data[at + 4] == 0:
            for index in range(count):  # after two neighbours a key before each child
                yield from self._symbols(self._number(at + 32 + 16 * index, 8), depth + 1)
        else:
            raise Fault(f"the B-tree of a group is damaged (at byte {at:,})")

    def _layer(self, header: _Header) -> Optional[str]:
        """The attribute "name" of a group, which Keras gives to a layer's variables."""
        attributes = [body for kind, body in header.messages if kind == _ATTRIBUTE]
        return next(filter(None, map(self._attribute, attributes)), None)

    def _attribute(self, body: memoryview) -> Optional[str]:
        """Its text if it is called "name". Each of its parts is padded to eight bytes."""
        if body[:1] != b"\x01":
            return None
        lengths = _unpacked("<HHH", body[2:])
        name_end, type_end, end = np.cumsum([8, *((n + 7) // 8 * 8 for n in lengths)])[1:]
        if bytes(body[8 : 8 + lengths[0]]).rstrip(b"\0") != b"name":
            return None
        kind, value = body[name_end:type_end], body[end:]
        if kind[:1] and kind[0] & 15 == _TEXT:
            return _text_at(value, 0)
        if kind[:1] and kind[0] & 15 == _ANY_LENGTH:
            length, heap, index = _unpacked("<IQI", value)
            return self._from_heap(heap, index, length)
        return None

    def _from_heap(self, at: int, wanted: int, length: int) -> str:
        """An object of a global heap, which all texts of a file share."""
        if self._piece(at, 16)[:4] != b"GCOL":
            raise Fault("a heap of texts is damaged")
        end, at = at + self._number(at + 8, 8), at + 16
        for _ in range(MAX_MESSAGES):
            if at + 16 > end:
                break
            index, size = self._number(at, 2), self._number(at + 8, 8)
            if index == wanted:
                return _text_at(self._piece(at + 16, min(length, size)), 0)
            if index == 0:
                break
            at += 16 + (size + 7) // 8 * 8
        raise Fault("a text is not in its heap")

    def _dataset(self, header: _Header) -> object:
        space, kind, layout = map(header.first, (_SPACE, _TYPE, _LAYOUT))
        if space is None or kind is None or layout is None:
            return Foreign("an object of HDF5", "it is no data set")
        shape = _shape(space)
        code, order = _type(kind)
        if not code:
            return Foreign("a data set of HDF5", "it holds something else than numbers")
        if len(shape) > MAX_DIMS or not numpy_can_hold(shape, code):
            return Foreign("a data set of HDF5", f"its shape {shape[:MAX_DIMS]} is too large")
        needed = math.prod(shape) * ITEM_BYTES[code]
        where = bytes(layout[:2])
        if header.first(_EXTERNAL) is not None or where not in (b"\x03\x00", b"\x03\x01"):
            fault = "its numbers are compressed, in several pieces or in another file"
            return Foreign("a data set of HDF5", fault)
        if where == b"\x03\x00":
            raw = layout[4 : 4 + needed]
        else:
            start, size = _unpacked("<QQ", layout[2:])
            if start == _NOWHERE and needed:
                return Foreign("a data set of HDF5", "it has no numbers")
            raw = self._piece(start, min(needed, size)) if needed else layout[:0]
        if len(raw) != needed:
            raise Fault(f"a data set of shape {shape} has {len(raw):,} bytes, not {needed:,}")
        return InOnePiece(raw, code, shape, order)


def _unpacked(form: str, body: memoryview) -> Tuple[int, ...]:
    if len(body) < struct.calcsize(form):
        raise Fault("a message is too short")
    return struct.unpack_from(form, body)


def _text_at(names: memoryview, at: int) -> str:
    raw = bytes(names[at : at + MAX_NAME_BYTES]).split(b"\0")[0]
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("a name is not UTF-8") from None


def _shape(space: memoryview) -> Tuple[int, ...]:
    """Version, number of sizes, whether there are limits, reserved; then the sizes."""
    version, count = _unpacked("<BB", space)
    if version not in (1, 2):
        raise Fault("the shape of a data set is of an unknown version")
    return _unpacked(f"<{min(count, MAX_DIMS + 1)}Q", space[8 if version == 1 else 4 :])


def _type(kind: memoryview) -> Tuple[str, str]:
    """Code and order of a data set's numbers; no code for what are none, or not IEEE 754's."""
    first, bits, size = _unpacked("<BBxxI", kind)
    order = ">" if bits & 1 else "<"
    if first & 15 == _FLOAT and size in _EXPONENT_BITS:
        (exponent,) = _unpacked("<B", kind[13:])
        return ("", "") if exponent != _EXPONENT_BITS[size] else (f"f{size}", order)
    if first & 15 == _INTEGER and size in (1, 2, 4, 8):
        return f"{'i' if bits & 8 else 'u'}{size}", order
    return "", ""
