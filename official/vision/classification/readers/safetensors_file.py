"""Reads ``.safetensors`` files through the safetensors library.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, a
JSON header of name -> {dtype, shape, data_offsets} and "__metadata__", then the tensors' bytes,
little-endian and in C order. The library checks that lengths, offsets and shapes agree and that the
tensors cover the file without overlap. It lets a name come twice, which the format forbids; that is
checked here.
"""

import functools
import json
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from ..errors import WeightsError
from .contents import Contents, Fault, View
from .pickle_data import shown
from .stored_numbers import MAX_DIMS, decoded, numpy_can_hold, stored_dtype

# A header takes about 100 bytes for each tensor. The library's own limit, 100 MB, would allow a
# million, and parsing JSON takes ten times its size.
MAX_HEADER_BYTES = 8 << 20

_CODES = {"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "bf16", "BOOL": "b1", "I64": "i8"}
_CODES.update({"I32": "i4", "I16": "i2", "I8": "i1", "U64": "u8", "U32": "u4", "U16": "u2"})
_CODES["U8"] = "u1"


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` has a JSON object where the header belongs."""
    return head[4:9] == b"\0\0\0\0{"  # no header has 4 GiB


def read(data: bytes, path: str) -> Contents:
    """The tensors by name, and the header's "__metadata__". bfloat16 comes back as float32."""
    refuse = functools.partial(_refusal, path)
    try:
        import safetensors  # MegEngine does not bring it, and those who use the hub may not have it
    except ImportError:
        raise WeightsError(
            f"{path}: is a safetensors file, and the package safetensors is not installed. "
            "Install it as requirements.txt says."
        ) from None
    try:
        tensors, metadata = _read(data, safetensors.deserialize)
    except (safetensors.SafetensorError, ValueError, OverflowError, RecursionError) as error:
        raise refuse(Fault(str(error))) from error
    views = {name: View(array) for name, array in tensors.items()}
    return Contents(views, refuse, len(data) * 2, metadata)  # twice: bfloat16 is float32 already


def _refusal(path: str, fault: Fault) -> WeightsError:
    return WeightsError(
        f"{path}: cannot be read as a safetensors file: {fault}. "
        "Download it again, or save it anew with safetensors.numpy.save_file."
    )


def _read(
    data: bytes, deserialize: Callable[[bytes], List[Tuple[str, Dict[str, Any]]]]
) -> Tuple[Dict[str, np.ndarray], Dict[str, str]]:
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header has {length:,} bytes; expected at most {MAX_HEADER_BYTES:,}")
    entries = deserialize(data)
    # Only now: the library has found the header sound.
    header = json.loads(data[8 : 8 + length].decode("utf-8"), object_pairs_hook=_without_repeats)
    metadata = header.pop("__metadata__", None) or {}
    tensors = {name: _array(name, **entry) for name, entry in entries}
    return {name: tensors[name] for name in header}, metadata  # the library's order is random


def _without_repeats(pairs: List[Tuple[str, object]]) -> Dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice in its header")
    return found


def _array(name: str, dtype: str, shape: List[int], data: bytes) -> np.ndarray:
    if len(shape) > MAX_DIMS:
        raise ValueError(
            f"tensor {shown(name)} has {len(shape)} dimensions; expected at most {MAX_DIMS}"
        )
    if dtype not in _CODES:
        raise ValueError(f"tensor {shown(name)} is of type {dtype}, which numpy does not have")
    code = _CODES[dtype]
    if not numpy_can_hold(tuple(shape), code):
        raise ValueError(f"tensor {shown(name)} has shape {tuple(shape)}, which is too large")
    return decoded(np.frombuffer(data, stored_dtype(code)).reshape(shape), code)
