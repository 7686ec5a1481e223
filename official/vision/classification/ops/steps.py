"""The steps of a compiled network as the native side reads them: native/plan/plan.h.

A step's map says where its values lie and how; a convolution's weight is packed as
native/plan/convolution.cpp and winograd.cpp want it.
"""

import ctypes

import numpy as np

FLOAT, BFLOAT16, BYTE = range(3)
CONVOLVE, WINOGRAD, AFFINE, ADD, MAX_POOL, MEAN, HALVE, SUBSAMPLE, COPY = range(9)

KINDS = ("Convolve", "Winograd", "Affine", "Add", "MaxPool", "Mean", "Halve", "Subsample", "Copy")
BYTES = {FLOAT: 4, BFLOAT16: 2, BYTE: 1}  # of an element
LANES, PANEL = 16, 64

# G of Winograd's F(4x4, 3x3): Lavin and Gray, arXiv:1509.09308, section 4.3.
_FILTER_POINTS = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


class Map(ctypes.Structure):
    """``(count, height, width, channels)`` with ``halo`` pixels around each image."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("halo", ctypes.c_int32),
        ("zero", ctypes.c_int32),
        ("scale", ctypes.c_float),
    ]


class Step(ctypes.Structure):
    """One call of a kernel; pairs are for rows and columns."""

    _fields_ = [
        ("kind", ctypes.c_int32),
        ("relu", ctypes.c_int32),
        ("x", Map),
        ("y", Map),
        ("add", Map),
        ("kernel", ctypes.c_int32 * 2),
        ("stride", ctypes.c_int32 * 2),
        ("padding", ctypes.c_int32 * 2),
        ("dilation", ctypes.c_int32 * 2),
        ("groups", ctypes.c_int32),
        ("before", ctypes.c_int32),
        ("images", ctypes.c_int32),
        ("at_once", ctypes.c_int32),
        ("apart", ctypes.c_int32),
        ("spacing", ctypes.c_size_t),
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
    ]


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 values, rounded to nearest, ties to even; NaN stays NaN."""
    words = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def packed(weight: np.ndarray, groups: int, dilated: bool, element: int) -> np.ndarray:
    """A convolution's weight as native/plan/convolution.cpp reads it.

    Args:
        weight: ``(O, I / groups, kh, kw)``; of numbers from -127 to 127 for BYTE.
        dilated: whether the columns of a window are apart.
        element: the type of the map that is convolved.

    Raises:
        ValueError: for groups that do not fit sixteen lanes.
    """
    if groups > 1:
        weight = _side_by_side(weight, groups)
    outputs, inputs, rows, columns = weight.shape
    windows = weight.transpose(0, 2, 3, 1)
    runs = rows * columns if groups > 1 or dilated else rows
    four = 4 // BYTES[element]  # elements that one instruction multiplies
    length = -(-rows * columns * inputs // runs // four) * four
    padded = np.zeros((-(-outputs // LANES) * LANES, runs, length), np.float32)
    padded[:outputs, :, : rows * columns * inputs // runs] = windows.reshape(outputs, runs, -1)
    grouped = padded.reshape(len(padded), runs, length // four, four)
    panel = PANEL if groups == 1 else _lanes_of_group(outputs // groups)
    panels = [
        grouped[first : first + panel].transpose(1, 2, 0, 3).ravel()
        for first in range(0, len(grouped), panel)
    ]
    values = np.concatenate(panels)
    if element == BFLOAT16:
        values = bfloat16_bits(values)
    return aligned(values.astype(np.int8) if element == BYTE else values)


def _lanes_of_group(outputs: int) -> int:
    """Output channels that are computed together, of groups that have so many."""
    if outputs % LANES == 0:
        return PANEL if outputs % PANEL == 0 else LANES if outputs > PANEL else outputs
    if LANES % outputs == 0:
        return LANES
    raise ValueError(f"groups of {outputs} output channels do not fit {LANES} lanes")


def _side_by_side(weight: np.ndarray, groups: int) -> np.ndarray:
    """Several small groups as one, whose weights for the others' channels are zero."""
    outputs, inputs = len(weight) // groups, weight.shape[1]
    lanes = _lanes_of_group(outputs)
    if len(weight) % lanes:
        raise ValueError(f"{groups} groups of {outputs} output channels do not fill {lanes} lanes")
    together = max(1, lanes // outputs)
    if together == 1:
        return weight
    wide = np.zeros((len(weight), inputs * together, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        first = group % together * inputs
        wide[rows, first : first + inputs] = weight[rows]
    return wide


def winograd_points(weight: np.ndarray) -> np.ndarray:
    """``(O, I, 3, 3)`` as native/plan/winograd.cpp reads it: 36 matrices for every 64 of O."""
    outputs, inputs = weight.shape[:2]
    points = np.einsum(
        "pi,ocij,qj->pqco", _FILTER_POINTS, weight.astype(np.float64), _FILTER_POINTS, optimize=True
    ).astype(np.float32)
    padded = np.zeros((36, inputs, -(-outputs // LANES) * LANES), np.float32)
    padded[..., :outputs] = points.reshape(36, inputs, outputs)
    panels = [
        padded[..., first : first + PANEL].ravel() for first in range(0, padded.shape[2], PANEL)
    ]
    return aligned(np.concatenate(panels))


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy of a vector that begins where a line of the cache does."""
    copy = room(values.nbytes).view(values.dtype)
    copy[:] = values
    return copy


def room(count: int) -> np.ndarray:
    """Uninitialised bytes that begin where a line of the cache does."""
    data = np.empty(count + 64, np.uint8)
    first = -data.ctypes.data % 64
    return data[first : first + count]
