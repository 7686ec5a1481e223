"""Reads what ``mindspore.save_checkpoint`` writes.

The format (MindSpore 2, ``mindspore/python/mindspore/train/serialization.py`` and
``checkpoint.proto``) is one message of Protocol Buffers: ``Checkpoint`` is a row of ``Value``, and
a Value is a tag, which is the parameter's name, and a ``TensorProto`` of sizes, type and bytes,
little-endian and in C order. A tensor of more than 512 MiB comes in pieces: Values in a row with
the same tag, each with the sizes of the whole. Scalars have no sizes, or one of 0 in old files.
``crc_check=True`` adds a trailer: "crc_num" and the CRC-32 of all before it, ten bytes big-endian.

The outer structure is walked here and the bytes of tensors are found without a copy; protobuf
decodes what is left of each message. That bounds the cost of a hostile file, since protobuf would
make an object of each of a million empty messages.

A file without the trailer that was cut off between two Values is a sound file with fewer tensors.
"""

import functools
import math
import zlib
from typing import Any, Dict, Iterator, List, Tuple, Union

import numpy as np

from ..errors import WeightsError
from .contents import Contents, Fault, StoredTensor
from .pickle_data import shown
from .stored_numbers import ITEM_BYTES, MAX_DIMS, decoded, numpy_can_hold, stored_dtype

MAX_VALUES = 100_000  # the largest network here has 600 tensors, and an optimizer has two for each
MAX_FIELDS = 64  # of a message within: a Value has 2, a TensorProto 2 and one for each size
MAX_FIELD_BYTES = 4096  # of what is not a tensor's bytes; a name has a few dozen

_VARINT, _BYTES = 0, 2  # wire types of Protocol Buffers
_TRAILER = b"crc_num"
_TRAILER_BYTES = len(_TRAILER) + 10

_CODES = {"Float16": "f2", "Float32": "f4", "Float64": "f8", "BFloat16": "bf16", "Bool": "b1"}
for _bits in (8, 16, 32, 64):
    _CODES[f"Int{_bits}"] = f"i{_bits // 8}"
    _CODES[f"UInt{_bits}"] = f"u{_bits // 8}"
    _CODES[f"Uint{_bits}"] = f"u{_bits // 8}"  # MindSpore 1

# How an encrypted file starts (``mindspore/core/utils/crypto.h``): AES-GCM, AES-CBC, SM4-CBC.
ENCRYPTED = (b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f", b"\xda\x5e\x3a\x7f")

Buffer = Union[bytes, memoryview]


class _FormatError(Fault):
    """A file that is damaged or not as MindSpore writes it. Says what and where."""


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` starts with a Value whose tag is text."""
    try:
        number, at = _varint(head, 0)
        length, at = _varint(head, at)
        inner, at = _varint(head, at)
        tag_length, at = _varint(head, at)
    except _FormatError:
        return False
    tag = head[at : at + tag_length]
    fits = number == inner == (1 << 3 | _BYTES) and 0 < tag_length < length
    return fits and len(tag) == tag_length and all(byte >= 0x20 for byte in tag)


def read(data: bytes, path: str) -> Contents:
    """The tensors by name. Text is left out."""
    refuse = functools.partial(_refusal, path)
    try:
        return Contents(_read(data), refuse, len(data))
    except ImportError:
        raise WeightsError(
            f"{path}: is a MindSpore checkpoint, and the package protobuf is not installed or too "
            "old. Install it as requirements.txt says."
        ) from None
    except _FormatError as error:
        raise refuse(error) from error


def _refusal(path: str, fault: Fault) -> WeightsError:
    return WeightsError(
        f"{path}: cannot be read as a MindSpore checkpoint: {fault}. Download it again, or "
        "save it anew with mindspore.save_checkpoint, without encryption."
    )


@functools.lru_cache(maxsize=None)
def _message_classes() -> Tuple[Any, Any]:
    """Value without its tensor, and TensorProto without its bytes, as protobuf's classes.

    Text is declared as bytes, since a hostile file need not hold UTF-8.
    """
    # MegEngine does not bring protobuf, and those who use the hub may not have it.
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    text = {"type": FieldDescriptorProto.TYPE_BYTES, "label": FieldDescriptorProto.LABEL_OPTIONAL}
    sizes = {"type": FieldDescriptorProto.TYPE_INT64, "label": FieldDescriptorProto.LABEL_REPEATED}
    file = FileDescriptorProto(name="checkpoint.proto", package="mindspore", syntax="proto2")
    file.message_type.add(name="Value").field.add(name="tag", number=1, **text)
    tensor = file.message_type.add(name="TensorProto").field
    tensor.add(name="dims", number=1, **sizes)
    tensor.add(name="tensor_type", number=2, **text)
    pool = DescriptorPool()
    pool.Add(file)
    names = ("mindspore.Value", "mindspore.TensorProto")
    value, tensor_proto = (GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return value, tensor_proto


def _decoded(kind: Any, small: bytes) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(small)
    except DecodeError:
        raise _FormatError("a message is damaged") from None


def _varint(data: Buffer, at: int) -> Tuple[int, int]:
    """The integer of at most 64 bits at ``at``, seven bits to a byte, and where it ends."""
    value = 0
    for index in range(10):
        if at + index >= len(data):
            raise _FormatError("it ends in the middle of a number")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise _FormatError("a number has more than 64 bits")


def _fields(data: memoryview, limit: int) -> Iterator[Tuple[int, memoryview, memoryview]]:
    """Each field of a message: its number, all its bytes, and those of its value."""
    at = 0
    for _ in range(limit):
        if at == len(data):
            return
        begin = at
        key, at = _varint(data, at)
        length, end = _varint(data, at)
        if key & 7 == _BYTES:
            at, end = end, end + length
        elif key & 7 != _VARINT:
            raise _FormatError(f"a field has wire type {key & 7}, which MindSpore does not use")
        if end > len(data):
            raise _FormatError(f"a field needs {length:,} bytes and {len(data) - at:,} are left")
        yield key >> 3, data[begin:end], data[at:end]
        at = end
    if at != len(data):
        raise _FormatError(f"a message has more than {limit:,} fields")


def _split(message: memoryview, number: int) -> Tuple[bytes, List[memoryview]]:
    """The values of the field that may be large, and the others together, for protobuf."""
    large, small, small_bytes = [], [], 0
    for found, whole, value in _fields(message, MAX_FIELDS):
        if found == number and whole[0] & 7 == _BYTES:
            large.append(value)
            continue
        small_bytes += len(whole)
        if small_bytes > MAX_FIELD_BYTES:
            raise _FormatError("a Value has something large beside its tensor; maps are not read")
        small.append(whole)
    if len(large) > 1:
        raise _FormatError("a Value has more than one tensor, or a tensor more than one content")
    return b"".join(small), large


class _Parameter(StoredTensor):
    """A tensor in waiting, whole or in pieces."""

    def __init__(self, name: str, kind: str, dims: Tuple[int, ...]) -> None:
        self.name, self.kind, self.dims = name, kind, dims
        self.pieces: List[memoryview] = []
        self._nbytes = 0

    def add(self, piece: memoryview) -> None:
        self.pieces.append(piece)
        self._nbytes += len(piece)

    @property
    def shape(self) -> Tuple[int, ...]:
        code = _CODES[self.kind]
        old_scalar = self.dims == (0,) and self._nbytes == ITEM_BYTES[code]  # of MindSpore 1
        return () if old_scalar else self.dims

    @property
    def nbytes(self) -> int:
        return self._nbytes

    @property
    def needed(self) -> int:
        return math.prod(self.dims) * ITEM_BYTES[_CODES[self.kind]]

    @property
    def complete(self) -> bool:
        return self.kind == "str" or self._nbytes >= self.needed

    def check(self) -> None:
        if self.shape == self.dims and self._nbytes != self.needed:
            raise _FormatError(
                f"tensor {shown(self.name)} of shape {self.dims} needs {self.needed:,} bytes and "
                f"has {self._nbytes:,}"
            )

    def to_numpy(self) -> np.ndarray:
        code = _CODES[self.kind]
        raw = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        return decoded(np.frombuffer(raw, stored_dtype(code)).reshape(self.shape), code)


def _read(data: bytes) -> Dict[str, StoredTensor]:
    parameters: Dict[str, _Parameter] = {}
    last = ""
    for number, whole, value in _fields(_without_trailer(data), MAX_VALUES):
        if number != 1 or whole[0] & 7 != _BYTES:
            raise _FormatError(f"it has a field {number} that is no Value")
        parameter, piece = _parameter(value)
        name = parameter.name
        known = parameters.setdefault(name, parameter)
        same = (known.kind, known.dims) == (parameter.kind, parameter.dims)
        if known is not parameter and not (name == last and same and not known.complete):
            raise _FormatError(f"tensor {shown(name)} comes twice")
        known.add(piece)
        last = name
    found: Dict[str, StoredTensor] = {}
    for name, parameter in parameters.items():
        if parameter.kind != "str":
            parameter.check()
            found[name] = parameter
    return found


def _without_trailer(data: bytes) -> memoryview:
    """The message itself; its checksum is checked if it has one."""
    view = memoryview(data)
    if data[-_TRAILER_BYTES:-10] != _TRAILER:
        return view
    view = view[:-_TRAILER_BYTES]
    if zlib.crc32(view) != int.from_bytes(data[-10:], "big"):
        raise _FormatError("its checksum is wrong")
    return view


def _parameter(value: memoryview) -> Tuple[_Parameter, memoryview]:
    """What a Value says of its parameter, and the bytes that it brings."""
    value_class, tensor_class = _message_classes()
    small, tensors = _split(value, 2)
    name = _text(_decoded(value_class, small).tag)
    if not tensors or not name:
        raise _FormatError(f"Value {shown(name)} has no tensor; maps are not read")
    small, contents = _split(tensors[0], 3)
    tensor = _decoded(tensor_class, small)
    kind, dims = _text(tensor.tensor_type), tuple(tensor.dims)
    if kind != "str" and kind not in _CODES:
        raise _FormatError(f"tensor {shown(name)} is of type {shown(kind)}; expected plain numbers")
    if len(dims) > MAX_DIMS or not all(0 <= size < 2**31 for size in dims):
        raise _FormatError(
            f"tensor {shown(name)} has no shape of at most {MAX_DIMS} sizes below 2**31"
        )
    if kind != "str" and not numpy_can_hold(dims, _CODES[kind]):
        raise _FormatError(f"tensor {shown(name)} has shape {dims}, which is too large")
    return _Parameter(name, kind, dims), contents[0] if contents else memoryview(b"")


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _FormatError("a name is not UTF-8") from None
