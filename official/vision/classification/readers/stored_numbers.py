"""Rows of numbers as weight files hold them: raw bytes and a code for what they mean.

Codes are numpy's, such as "f4", without the byte order, and "bf16" for bfloat16, which numpy does
not have: the upper half of a float32.
"""

import math
from typing import Tuple

import numpy as np

MAX_DIMS = 8  # MegEngine's tensors have at most 7

ITEM_BYTES = {"b1": 1, "i1": 1, "u1": 1, "i2": 2, "u2": 2, "f2": 2, "bf16": 2}
ITEM_BYTES.update({"i4": 4, "u4": 4, "f4": 4, "i8": 8, "u8": 8, "f8": 8})

_STORED_AS = {"bf16": "u2", "b1": "u1"}


def stored_dtype(code: str, order: str = "<") -> np.dtype:
    """The dtype to look at the bytes with; ``decoded`` turns such an array into numbers."""
    return np.dtype(order + _STORED_AS.get(code, code))


def decoded(array: np.ndarray, code: str) -> np.ndarray:
    """The numbers, native-endian, C-contiguous and aligned; without a copy where it can be."""
    if code == "bf16":
        bits = array.reshape(-1).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(array.shape)
    if code == "b1":  # any byte but 0 and 1 is no valid numpy bool
        return np.asarray(np.not_equal(array, 0, order="C"))
    return np.require(array, array.dtype.newbyteorder("="), ["C", "ALIGNED"])


def numpy_can_hold(shape: Tuple[int, ...], code: str) -> bool:
    """numpy refuses an empty array whose other sizes would overflow, so readers do too."""
    return math.prod(size for size in shape if size) * ITEM_BYTES[code] < 2**63
