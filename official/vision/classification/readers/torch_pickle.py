"""The names that a PyTorch file may use, and what plays them: shared by its two layouts.

``torch.save`` (PyTorch 2, ``torch/serialization.py``) pickles a tensor as a call of
``torch._utils._rebuild_tensor_v2(storage, offset, size, stride, ...)``, counted in numbers and not
in bytes. The storage is a persistent id, and its bytes lie elsewhere in the file. Before PyTorch
0.4 the call was ``_rebuild_tensor``; types that came late, such as uint16, use
``_rebuild_tensor_v3``, whose storage is untyped. A Parameter wraps a tensor.

Every other name is that of something inert; see ``lenient_pickle``.
"""

import math
from typing import Dict, Optional, Tuple

import numpy as np

from .contents import StoredTensor
from .foreign import Foreign
from .megengine_pickle import NUMPY_NAMES
from .pickle_data import Inert, PickleDataError, shown
from .stored_numbers import ITEM_BYTES, MAX_DIMS, decoded, numpy_can_hold, stored_dtype


class Numbers(Inert):
    """A dtype of PyTorch, or the type of storage that holds it. ``code`` is without byte order."""

    def __init__(self, name: str, code: str) -> None:
        super().__init__(name)
        self.code = code
        self.bytes = ITEM_BYTES[code]


UNTYPED = Numbers("UntypedStorage", "u1")


class Storage:
    """A row of ``count`` numbers whose bytes are known once ``data`` is set.

    A view, as old files have them, is a stretch of another storage and has no data of its own.
    """

    def __init__(self, kind: Numbers, count: int, root: Optional["Storage"] = None) -> None:
        self.kind = kind
        self.count = count
        self.data: Optional[memoryview] = None
        self.order = "<"
        self.root = root
        self.start = 0

    def raw(self) -> memoryview:
        if self.root is not None:
            begin = self.start * self.kind.bytes
            return self.root.raw()[begin : begin + self.count * self.kind.bytes]
        if self.data is None:
            raise PickleDataError("a storage has no data")
        return self.data


def checked_storage(kind: object, count: object) -> Storage:
    """A storage as a persistent id describes it, still without its bytes.

    Raises:
        PickleDataError: if the file did not give a type and a count.
    """
    if isinstance(kind, Foreign):
        raise PickleDataError(kind.fault)
    if not isinstance(kind, Numbers):
        raise PickleDataError("a storage has no type")
    if type(count) is not int or not 0 <= count < 2**48:
        raise PickleDataError("a storage has no size")
    return Storage(kind, count)


class Tensor(StoredTensor):
    """A tensor in waiting: its place in a storage, which is known to hold it."""

    def __init__(
        self, storage: Storage, kind: Numbers, offset: object, size: object, stride: object
    ) -> None:
        self.storage, self.kind = storage, kind
        self.size, self.stride = _checked_shape(size, stride)
        self.offset = _checked_offset(offset)
        count = storage.count * storage.kind.bytes // kind.bytes
        steps = sum((n - 1) * step for n, step in zip(self.size, self.stride))
        if 0 not in self.size and self.offset + steps >= count:
            raise PickleDataError(
                f"a tensor of shape {self.size} reaches past the end of its storage, "
                f"which holds {count:,} numbers"
            )
        if not numpy_can_hold(self.size, kind.code):
            raise PickleDataError(f"a tensor's shape {self.size} is too large")

    def set_state(self, state: object) -> None:
        """Before PyTorch 1.0 a Parameter's state was its hooks, which are not weights."""

    @property
    def shape(self) -> Tuple[int, ...]:
        return self.size

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.kind.bytes

    @property
    def place(self) -> Tuple[object, ...]:
        """What two tensors over the same numbers have in common."""
        return (id(self.storage), self.kind.code, self.offset, self.size, self.stride)

    def to_numpy(self) -> np.ndarray:
        dtype = stored_dtype(self.kind.code, self.storage.order)
        if 0 in self.size:
            return decoded(np.empty(self.size, dtype), self.kind.code)
        raw = self.storage.raw()
        numbers = np.frombuffer(raw, dtype, len(raw) // self.kind.bytes)[self.offset :]
        steps = [step * self.kind.bytes for step in self.stride]
        # In bounds: the constructor has seen to it that the last number lies in the storage.
        view = np.lib.stride_tricks.as_strided(numbers, self.size, steps, writeable=False)
        return decoded(view, self.kind.code)


def _checked_shape(size: object, stride: object) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    for sizes in (size, stride):
        if not isinstance(sizes, tuple) or len(sizes) > MAX_DIMS:
            raise PickleDataError(f"a tensor's shape is no tuple of at most {MAX_DIMS} numbers")
        if not all(type(n) is int and 0 <= n < 2**63 for n in sizes):
            raise PickleDataError("a tensor's shape or stride holds something that is no size")
    if len(size) != len(stride):
        raise PickleDataError(f"a tensor has {len(size)} sizes and {len(stride)} strides")
    # The stride of a dimension of size 1 is never used and may be anything.
    return size, tuple(step if n > 1 else 0 for n, step in zip(size, stride))


def _checked_offset(offset: object) -> int:
    if type(offset) is not int or not 0 <= offset < 2**63:
        raise PickleDataError("a tensor's offset is no position")
    return offset


def _rebuild_tensor(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object = None,
    hooks: object = None,
    metadata: object = None,
) -> Tensor:
    if not isinstance(storage, Storage):
        raise PickleDataError(_fault_of(storage) or "a tensor has no storage")
    return Tensor(storage, storage.kind, offset, size, stride)


def _rebuild_tensor_v3(
    storage: object,
    offset: object,
    size: object,
    stride: object,
    requires_grad: object,
    hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(dtype, Numbers):
        fault = _fault_of(storage) or _fault_of(dtype)
        raise PickleDataError(fault or "a tensor has no storage or no dtype")
    if storage.kind is not UNTYPED:
        raise PickleDataError("a tensor has a dtype other than its storage's")
    return Tensor(storage, dtype, offset, size, stride)


def _parameter(
    data: object, requires_grad: object = True, hooks: object = None, state: object = None
) -> Tensor:
    if not isinstance(data, Tensor):
        raise PickleDataError(_fault_of(data) or "a Parameter holds no tensor")
    return data


def _fault_of(value: object) -> str:
    """Why a part of a tensor could not be had, if that is known."""
    return value.fault if isinstance(value, Foreign) else ""


def _size(sizes: object) -> Tuple[object, ...]:
    if not isinstance(sizes, tuple):
        raise PickleDataError("a torch.Size is no tuple")
    return sizes


class OrderedDict(dict):
    """Empty as Python 3 calls it, with a list of [key, value] as Python 2 did.

    Its state is attributes: a state dict has "_metadata", the versions of its modules.
    """

    def __init__(self, pairs: object = None) -> None:
        super().__init__()
        if pairs is None:
            return
        if not isinstance(pairs, list):
            raise PickleDataError("an OrderedDict is made of something that is no list")
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in (str, int):
                raise PickleDataError("an OrderedDict has an item without a key")
            if pair[0] in self:
                raise PickleDataError(f"the dict key {shown(str(pair[0]))} comes twice")
            self[pair[0]] = pair[1]
        pairs.clear()  # a file that names its list again and again must not multiply it

    def set_state(self, state: object) -> None:
        pass


_STORAGES = {"Float": "f4", "Double": "f8", "Half": "f2", "BFloat16": "bf16", "Bool": "b1"}
_STORAGES.update({"Char": "i1", "Byte": "u1", "Short": "i2", "Int": "i4", "Long": "i8"})

_DTYPES = {"float32": "f4", "float64": "f8", "float16": "f2", "bfloat16": "bf16", "bool": "b1"}
_DTYPES.update({"int8": "i1", "int16": "i2", "int32": "i4", "int64": "i8"})
_DTYPES.update({"uint8": "u1", "uint16": "u2", "uint32": "u4", "uint64": "u8"})

NAMES: Dict[Tuple[str, str], object] = {
    **NUMPY_NAMES,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): _size,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    # Before PyTorch 1.0
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.autograd.variable", "Variable"): _parameter,
    ("torch", "UntypedStorage"): UNTYPED,
    ("torch.storage", "UntypedStorage"): UNTYPED,
    ("torch.storage", "_UntypedStorage"): UNTYPED,
}
for _kind, _code in _STORAGES.items():
    NAMES["torch", f"{_kind}Storage"] = Numbers(f"{_kind}Storage", _code)
for _kind, _code in _DTYPES.items():
    NAMES["torch", _kind] = Numbers(f"torch.{_kind}", _code)
