"""Reads what ``megengine.save`` writes: a pickled state dict, alone or inside a checkpoint.

``megengine.save`` (MegEngine 1.13, ``serialization.py``) is ``pickle.dump``. A state dict is an
OrderedDict of numpy arrays, or of Tensors when it was taken with ``keep_var=True``. Arrays are
pickled as numpy documents in ``ndarray.__reduce__`` and ``ndarray.__setstate__``: by
``_reconstruct`` and a state up to protocol 4, by ``_frombuffer`` in protocol 5. A Tensor is built
from (array, dtype, device); before MegEngine 1.0 its array came in its state, as "data".

Each of these names is played by a stand-in below, which checks what the file hands it and keeps
it. An array is made of it only once the whole file is known to be sound.
"""

import functools
import math
from typing import Dict, Optional, Tuple

import numpy as np

from ..errors import WeightsError
from .contents import Contents, Fault, StoredTensor
from .foreign import Foreign
from .lenient_pickle import Spoilable, load_leniently
from .pickle_data import Inert, PickleDataError, shown
from .stored_numbers import ITEM_BYTES, MAX_DIMS, decoded, numpy_can_hold, stored_dtype

_PADDLE = "StructuredToParameterName@@"  # in every .pdparams
_SIZES = {code: size for code, size in ITEM_BYTES.items() if code != "bf16"}

_NDARRAY = Inert("numpy.ndarray")


class Dtype(Spoilable):
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


class Array(StoredTensor, Spoilable):
    """A numpy array in waiting: shape, dtype, order and bytes that are known to fit together."""

    def __init__(self) -> None:
        self.data: object = None
        self._shape: Tuple[int, ...] = ()
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
        if isinstance(dtype, (Dtype, Foreign)) and dtype.fault:
            raise PickleDataError(dtype.fault)
        if not isinstance(dtype, Dtype) or dtype.order is None or not isinstance(fortran, bool):
            raise PickleDataError("an array has no dtype or no order")
        # Protocol 2 has no bytes: they come as text, one latin-1 character for each.
        if not isinstance(data, (bytes, str)):
            raise PickleDataError(
                f"an array's data is of type {type(data).__name__}; expected bytes"
            )
        self._shape = _checked_shape(shape, dtype.code, len(data))
        self.dtype, self.fortran, self.data = dtype, fortran, data

    @property
    def shape(self) -> Tuple[int, ...]:
        return self._shape

    @property
    def nbytes(self) -> int:
        return 0 if self.dtype is None else len(self.data)

    def to_numpy(self) -> np.ndarray:
        """The array itself, native-endian and C-contiguous; a view of the bytes where it can be."""
        if self.fault or self.dtype is None:
            raise PickleDataError(self.fault or "an array has no data")
        raw = self.data
        if isinstance(raw, str):
            try:
                raw = raw.encode("latin-1")
            except UnicodeEncodeError:
                raise PickleDataError("an array's data is text that is not latin-1") from None
        flat = np.frombuffer(raw, stored_dtype(self.dtype.code, self.dtype.order))
        array = flat.reshape(self._shape, order="F" if self.fortran else "C")
        return decoded(array, self.dtype.code)


class Tensor(StoredTensor, Spoilable):
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

    @property
    def shape(self) -> Tuple[int, ...]:
        return () if self.array is None else self.array.shape

    @property
    def nbytes(self) -> int:
        return 0 if self.array is None else self.array.nbytes

    @property
    def place(self) -> int:
        return id(self.array)

    def to_numpy(self) -> np.ndarray:
        if self.fault or self.array is None:
            raise PickleDataError(self.fault or "a Tensor holds no array")
        return self.array.to_numpy()

    def _fill(self, data: object) -> None:
        if isinstance(data, Foreign):
            raise PickleDataError(data.fault)
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


def read(data: bytes, path: str) -> Contents:
    """What the pickle holds."""
    refuse = functools.partial(_refusal, path)
    try:
        value, end = load_leniently(data, _NAMES)
        if end != len(data):
            raise PickleDataError(f"{len(data) - end:,} bytes follow its end")
        if isinstance(value, dict) and _PADDLE in value:
            raise Fault("it is a file of Paddle, whose layers store other shapes", intact=True)
    except Fault as fault:
        raise refuse(fault) from fault
    return Contents(value, refuse, len(data))


def _refusal(path: str, fault: Fault) -> WeightsError:
    if "refuses torch." in str(fault):
        return WeightsError(
            f"{path}: is a plain pickle of PyTorch's values, which PyTorch itself does not "
            "write. Save its state dict with torch.save(model.state_dict(), path)."
        )
    again = "Save it" if fault.intact else "Download it again, or save it"
    return WeightsError(
        f"{path}: cannot be read as a MegEngine weight file: {fault}. "
        f"{again} anew with megengine.save(model.state_dict(), path)."
    )
