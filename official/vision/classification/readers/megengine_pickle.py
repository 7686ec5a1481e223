"""Reads what ``megengine.save`` writes: a pickled state dict, alone or inside a checkpoint.

``megengine.save`` (MegEngine 1.13, ``serialization.py``) is ``pickle.dump``. A state dict is an
OrderedDict of numpy arrays, or of Tensors when it was taken with ``keep_var=True``. Arrays are
pickled as numpy documents in ``ndarray.__reduce__`` and ``ndarray.__setstate__``: by
``_reconstruct`` and a state up to protocol 4, by ``_frombuffer`` in protocol 5. A Tensor is built
from (array, dtype, device); before MegEngine 1.0 its array came in its state, as "data".

Each of these names is played by a stand-in below, which checks what the file hands it and keeps
it. An array is made of it only once the whole file is known to be sound.
"""

import math
from typing import Dict, Optional, Tuple

import numpy as np

from ..errors import WeightsError
from .pickle_data import Inert, PickleDataError, load, shown
from .stored_numbers import ITEM_BYTES, MAX_DIMS, decoded, numpy_can_hold, stored_dtype

_SIZES = {code: size for code, size in ITEM_BYTES.items() if code != "bf16"}

_NDARRAY = Inert("numpy.ndarray")


class Dtype:
    """``numpy.dtype("f4", False, True)``, then the state ``(3, "<", None, None, None, -1, -1, 0)``.

    Only plain numbers: no objects, no fields, no text, no dates.
    """

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or code not in _SIZES:
            found = shown(code) if isinstance(code, str) else f"of type {type(code).__name__}"
            raise PickleDataError(f"a dtype is {found}; expected plain numbers such as f4")
        self.code = code
        self.order: Optional[str] = None

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 8 or self.order is not None:
            raise PickleDataError("a dtype has a state that plain numbers do not have")
        _, order, subarray, names, fields = state[:5]
        if subarray is not None or names is not None or fields is not None:
            raise PickleDataError("a dtype is structured; expected plain numbers")
        if order not in ("<", ">") and not (order == "|" and _SIZES[self.code] == 1):
            raise PickleDataError("a dtype has no byte order")
        self.order = order


class Array:
    """A numpy array in waiting: shape, dtype, order and bytes that are known to fit together."""

    def __init__(self) -> None:
        self.data: object = None
        self.shape: Tuple[int, ...] = ()
        self.dtype: Optional[Dtype] = None
        self.fortran = False

    def set_state(self, state: object) -> None:
        """``ndarray.__setstate__``: (version, shape, dtype, Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5 or state[0] != 1:
            raise PickleDataError("an array has a state that numpy does not write")
        self.fill(*state[1:])

    def fill(self, shape: object, dtype: object, fortran: object, data: object) -> None:
        if self.data is not None:
            raise PickleDataError("an array is filled twice")
        if not isinstance(dtype, Dtype) or dtype.order is None or not isinstance(fortran, bool):
            raise PickleDataError("an array has no dtype or no order")
        # Protocol 2 has no bytes: they come as text, one latin-1 character for each.
        if not isinstance(data, (bytes, str)):
            raise PickleDataError(
                f"an array's data is of type {type(data).__name__}; expected bytes"
            )
        self.shape = _checked_shape(shape, dtype.code, len(data))
        self.dtype, self.fortran, self.data = dtype, fortran, data

    def to_numpy(self) -> np.ndarray:
        """The array itself, native-endian and C-contiguous; a view of the bytes where it can be."""
        if self.dtype is None:
            raise PickleDataError("an array has no data")
        raw = self.data
        if isinstance(raw, str):
            try:
                raw = raw.encode("latin-1")
            except UnicodeEncodeError:
                raise PickleDataError("an array's data is text that is not latin-1") from None
        flat = np.frombuffer(raw, stored_dtype(self.dtype.code, self.dtype.order))
        array = flat.reshape(self.shape, order="F" if self.fortran else "C")
        return decoded(array, self.dtype.code)


class Tensor:
    """``megengine.Tensor`` or ``Parameter``; dtype and device are the array's own and nobody's."""

    def __init__(self, data: object = None, dtype: object = None, device: object = None) -> None:
        self.array: Optional[Array] = None
        if data is not None:
            self._fill(data)

    def set_state(self, state: object) -> None:
        if not isinstance(state, dict):
            raise PickleDataError("a Tensor's state is no dict")
        if "data" in state:
            self._fill(state["data"])

    def _fill(self, data: object) -> None:
        if not isinstance(data, Array) or self.array is not None:
            raise PickleDataError("a Tensor holds no array, or two")
        self.array = data


def _checked_shape(shape: object, code: str, length: int) -> Tuple[int, ...]:
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMS:
        raise PickleDataError(f"an array's shape is no tuple of at most {MAX_DIMS} numbers")
    if not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise PickleDataError("an array's shape holds something that is no size")
    needed = math.prod(shape) * _SIZES[code]
    if needed != length:
        raise PickleDataError(
            f"an array of shape {shape} needs {needed:,} bytes and has {length:,}"
        )
    if not numpy_can_hold(shape, code):
        raise PickleDataError(f"an array's shape {shape} is too large")
    return shape


def _reconstruct(kind: object, shape: object, code: object) -> Array:
    if kind is not _NDARRAY:
        raise PickleDataError("an array is of a subclass of numpy.ndarray")
    return Array()


def _frombuffer(
    data: object, dtype: object, shape: object, order: object, axes: object = None
) -> Array:
    # numpy 2 writes transposed arrays with order "K" and their axes; MegEngine needs numpy 1.
    if order not in ("C", "F"):
        raise PickleDataError("an array is neither in C nor in Fortran order")
    array = Array()
    array.fill(shape, dtype, order == "F", data)
    return array


def _scalar(dtype: object, data: object) -> Array:
    array = Array()
    array.fill((), dtype, False, data)
    return array


def _encode(text: object, encoding: object) -> str:
    """Bytes as protocol 2 writes them. They stay text until used: encoding copies (see load)."""
    if not isinstance(text, str) or encoding != "latin1":
        raise PickleDataError("bytes are written in a way that pickle does not use")
    return text


def _no_bytes() -> bytes:
    """Empty bytes as protocol 2 writes them. Not ``bytes``: it would allocate on request."""
    return b""


def _ordered_dict() -> Dict[object, object]:
    """An OrderedDict starts empty. Not ``dict``: it would copy what it is given."""
    return {}


NUMPY_NAMES: Dict[Tuple[str, str], object] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):  # the second since numpy 2
    NUMPY_NAMES[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    NUMPY_NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    NUMPY_NAMES[f"{_core}.numeric", "_frombuffer"] = _frombuffer

_NAMES: Dict[Tuple[str, str], object] = {
    **NUMPY_NAMES,
    ("collections", "OrderedDict"): _ordered_dict,
    ("megengine.tensor", "Tensor"): Tensor,
    ("megengine.tensor", "Parameter"): Tensor,
    # MegEngine before 1.0
    ("megengine.core.tensor", "Tensor"): Tensor,
    ("megengine.core.tensor_nn", "Parameter"): Tensor,
    ("megengine.core.tensor_nn", "Buffer"): Tensor,
}
# A Tensor's dtype may be named by its scalar type.
for _kind in ("float16", "float32", "int8", "int16", "int32", "uint8", "bool_"):
    _NAMES["numpy", _kind] = Inert(f"numpy.{_kind}")


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a pickle of protocol 2 to 5."""
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def read(data: bytes, path: str) -> Tuple[Dict[str, np.ndarray], Dict[str, str]]:
    """The arrays by name, and the metadata, which this format does not have."""
    try:
        return _read(data), {}
    except PickleDataError as error:
        if error.refused.startswith("torch."):
            raise WeightsError(
                f"{path}: is a plain pickle of PyTorch's values, which PyTorch itself does not "
                "write. Save its state dict with torch.save(model.state_dict(), path)."
            ) from error
        raise WeightsError(
            f"{path}: cannot be read as a MegEngine weight file: {error}. "
            "Download it again, or save it anew with megengine.save(model.state_dict(), path)."
        ) from error


def _read(data: bytes) -> Dict[str, np.ndarray]:
    value, end = load(data, _NAMES)
    if end != len(data):
        raise PickleDataError(f"{len(data) - end:,} bytes follow its end")
    arrays = _arrays(value)
    unique = {id(array): array for array in arrays.values()}
    # Each array has its own bytes in an honest file. A hostile one could name the same bytes again
    # and again to make a small file fill the memory.
    total = sum(len(array.data) for array in unique.values() if array.dtype is not None)
    if total > len(data):
        raise PickleDataError(f"its arrays take {total:,} bytes and the file has {len(data):,}")
    made = {key: array.to_numpy() for key, array in unique.items()}
    return {name: made[id(array)] for name, array in arrays.items()}


def _arrays(value: object) -> Dict[str, Array]:
    """The state dict: the value itself, or its entry "state_dict"."""
    if isinstance(value, dict) and isinstance(value.get("state_dict"), dict):
        value = value["state_dict"]
    if not isinstance(value, dict):
        raise PickleDataError(
            f"it holds a value of type {type(value).__name__}; expected a state dict"
        )
    arrays = {}
    for name, entry in value.items():
        array = entry.array if isinstance(entry, Tensor) else entry
        if not isinstance(name, str) or not isinstance(array, Array):
            kind = type(array).__name__
            raise PickleDataError(
                f"its entry {shown(str(name))} is of type {kind}; expected an array"
            )
        arrays[name] = array
    return arrays
