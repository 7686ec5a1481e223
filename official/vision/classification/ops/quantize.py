"""Networks in bytes: what a byte stands for, from what maps hold for some images.

Affine quantisation of maps, one scale and zero for each, and symmetric quantisation of weights, one
scale for each output channel: Jacob et al., "Quantization and Training of Neural Networks for
Efficient Integer-Arithmetic-Only Inference" (arXiv:1712.05877), section 2; Krishnamoorthi,
"Quantizing deep convolutional networks for efficient inference" (arXiv:1806.08342), section 3.
Products are added up in 32-bit integers.
"""

from typing import Dict, List, NamedTuple, Sequence, Tuple, Union

import numpy as np

from .recorder import CannotCompile, Node, Value
from .steps import BYTE, MAX_POOL, Map

LEVELS = 255
_LARGEST = 1e30
Range = Tuple[float, float]
Quantities = Dict[Value, Tuple[float, int]]


class LayerRange(NamedTuple):
    """Between what the numbers of a map lie: of the images, or of what a layer makes of them."""

    channels: int
    low: float
    high: float

    def is_bounded(self) -> bool:
        """Whether it is one: about zero, and far from what float32 cannot hold."""
        return -_LARGEST <= self.low <= 0 <= self.high <= _LARGEST


LayerRanges = Tuple[LayerRange, ...]
# What settles what bytes stand for: (N, H, W, C) normalised images, or what these gave before.
Calibration = Union[np.ndarray, LayerRanges]


def layer_ranges(nodes: Sequence[Node], x: Value, ranges: Sequence[Range]) -> LayerRanges:
    """The ranges of the images and of every node, in order, with what they are of.

    Raises:
        CannotCompile: when one has no end.
    """
    found = zip((x, *(node.y for node in nodes)), ranges)
    result = tuple(LayerRange(value.shape[1], low, high) for value, (low, high) in found)
    if not all(each.is_bounded() for each in result):
        raise CannotCompile("int8: some images give values that bytes cannot stand for")
    return result


def ranges_for(nodes: Sequence[Node], x: Value, stated: LayerRanges) -> List[Range]:
    """The ranges of these nodes, or of some that begin with them.

    Raises:
        CannotCompile: when they are of other ones.
    """
    channels = [x.shape[1], *(node.y.shape[1] for node in nodes)]
    if [each.channels for each in stated[: len(channels)]] != channels:
        raise CannotCompile("int8: the ranges that are stated are of other layers")
    return [(each.low, each.high) for each in stated[: len(channels)]]


def quantities_of(nodes: Sequence[Node], x: Value, ranges: Sequence[Range]) -> Quantities:
    """Scale and zero of the images and of what every node makes, from their ranges, in order."""
    found = {x: _scale_and_zero(ranges[0])}
    for node, each in zip(nodes, ranges[1:]):
        found[node.y] = found[node.x] if node.kind == MAX_POOL else _scale_and_zero(each)
    return found


def range_of(maps: np.ndarray) -> Range:
    """What bytes should reach for: the mean over images of each one's least and largest value."""
    values = maps.reshape(len(maps), -1)
    return min(0.0, float(values.min(1).mean())), max(0.0, float(values.max(1).mean()))


def rounded_weight(weight: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """``(O, ...)`` as integers from -127 to 127, and the scale of each output channel."""
    flat = weight.reshape(len(weight), -1)
    scale = np.abs(flat).max(1) / 127
    scale[scale == 0] = 1
    return np.rint(flat / scale[:, None]).reshape(weight.shape), scale.astype(np.float32)


def scale_and_bias(node: Node, x: Map, y: Map, add: Map) -> Tuple[np.ndarray, np.ndarray]:
    """What makes a byte of y of a sum of products of bytes: ``sum * scale + bias``, per channel.

    With real values ``s_x s_w (sum - z_x sum(w)) + b`` and ``s_a (q_a - z_a)`` added, in units of
    ``s_y`` and about ``z_y``; the native side adds ``q_a s_a / s_y``.
    """
    integers, scales = rounded_weight(node.weight)
    unit, zero = (y.scale, y.zero) if y.type == BYTE else (1.0, 0)
    scale = x.scale * scales.astype(np.float64) / unit
    sums = integers.reshape(len(integers), -1).sum(1)
    bias = np.zeros(len(sums)) if node.bias is None else node.bias.astype(np.float64)
    bias = bias / unit + zero - scale * x.zero * sums
    if node.add is not None:
        bias -= add.scale * add.zero / unit
    return scale.astype(np.float32), bias.astype(np.float32)


def _scale_and_zero(each: Range) -> Tuple[float, int]:
    low, high = each
    scale = (high - low) / LEVELS or 1.0
    return scale, round(-low / scale)
