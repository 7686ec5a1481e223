"""Weights and images that every environment draws alike, from names and shapes alone.

An oracle script gives its framework these weights, a test gives them to this project's network
under the same names, and only the names, the shapes and the logits need to be stored.

The values are raw integers of numpy's PCG64, whose stream numpy guarantees for every version,
scaled by operations that IEEE 754 rounds exactly: they have the same bits everywhere.
"""

import math
import zlib
from typing import Dict, Mapping, Sequence, Tuple

import numpy as np

# The last part of a name, as PyTorch, MegEngine, MindSpore, Keras and flax spell it -> the lowest
# and highest value. Wide enough that to leave a tensor out, or to swap two, changes the logits;
# small enough that the activations stay finite through the 50 blocks of the deepest network.
RANGES = {
    "weight": (0.5, 1.0),
    "gamma": (0.5, 1.0),
    "scale": (0.5, 1.0),
    "bias": (-0.2, 0.2),
    "beta": (-0.2, 0.2),
    "running_mean": (-0.2, 0.2),
    "moving_mean": (-0.2, 0.2),
    "mean": (-0.2, 0.2),
    "running_var": (0.5, 1.5),
    "moving_variance": (0.5, 1.5),
    "var": (0.5, 1.5),
}
COUNTER = "num_batches_tracked"


def tensors(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> Dict[str, np.ndarray]:
    """A tensor for every name; each depends on its own name and shape and the seed only."""
    return {name: tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def tensor(name: str, shape: Tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A float32 tensor whose scale suits its part in a network; int64 for a BN's counter.

    Convolutions, also grouped ones of five dimensions, have the variance 2 / fan-in (He et al.,
    arXiv:1502.01852, eq. 10) and classifiers 1 / fan-in.

    Raises:
        KeyError: when the name ends in no known part.
    """
    part = name.rpartition(".")[2]
    if part == COUNTER:
        return np.array(_stream(name, seed).random_raw() % 100_000, np.int64).reshape(shape)
    if part == "weight" and len(shape) > 1:
        gain = 2 if len(shape) > 2 else 1
        bound = math.sqrt(3 * gain / math.prod(shape[-3:] if len(shape) > 2 else shape[-1:]))
        low, high = -bound, bound
    elif part == "kernel":  # of Keras and flax: what comes out is the last axis
        bound = math.sqrt(3 * (2 if len(shape) > 2 else 1) / math.prod(shape[:-1]))
        low, high = -bound, bound
    else:
        low, high = RANGES[part]
    return uniform(name, shape, low, high, seed)


def of_types(entries: Mapping[str, Sequence]) -> Dict[str, np.ndarray]:
    """The tensors of a file from ``{name: (type, shape)}``, or ``(type, shape, value)`` for a value
    that is not drawn. Texts are left out.
    """
    made = {}
    for name, (kind, shape, *value) in entries.items():
        if kind != "str":
            made[name] = np.array(*value, kind) if value else of_type(name, kind, tuple(shape))
    return made


def of_type(name: str, kind: str, shape: Tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A tensor for a file that holds ``kind``: a name of numpy's, or ``bfloat16``.

    Floats are ``tensor``'s, rounded, and a bfloat16 is the float32 of the same value, for numpy has
    no such type. Integers and truth values are small.
    """
    if kind == "bfloat16":
        return (tensor(name, shape, seed).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    if np.dtype(kind).kind == "f" or name.endswith(COUNTER):
        return tensor(name, shape, seed).astype(kind)
    return (_stream(name, seed).random_raw(math.prod(shape)) % 101).astype(kind).reshape(shape)


def images(height: int, width: int, count: int = 2, seed: int = 0) -> np.ndarray:
    """``(count, 3, height, width)`` in float32, within 2.5 of zero like normalised photographs.

    Random squares of 32, 8 and 1 pixels are added, for the mean over a map hardly tells white
    noise from other white noise.
    """
    total = np.zeros((count, 3, height, width), np.float32)
    for side, amplitude in ((32, 1.0), (8, 1.0), (1, 0.5)):
        shape = (count, 3, -(-height // side), -(-width // side))
        coarse = uniform(f"{height}x{width}/{side}", shape, -amplitude, amplitude, seed)
        total += coarse.repeat(side, 2).repeat(side, 3)[:, :, :height, :width]
    return total


def uniform(name: str, shape: Tuple[int, ...], low: float, high: float, seed: int) -> np.ndarray:
    """Float32 between ``low`` and ``high`` from 24 random bits each."""
    size = math.prod(shape)
    raw = _stream(name, seed).random_raw((size + 1) // 2).astype("<u8", copy=False)
    unit = (raw.view("<u4")[:size] >> 8).astype(np.float32) * np.float32(2**-24)
    return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)


def _stream(name: str, seed: int) -> np.random.PCG64:
    return np.random.PCG64([seed, zlib.crc32(name.encode())])
