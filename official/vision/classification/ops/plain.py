"""The operations that networks are made of, as MegEngine has them.

A network calls them through the ``ops`` of its modules, so that others with the same results can
take their place: ``ops/accelerate.py``. What is one operation here can be one pass over memory
there; that is why ``conv_norm`` and ``add`` know of what follows them.
"""

import functools
import math
from typing import Any, Callable, Dict, Iterable, NamedTuple, Optional, Tuple

import megengine.functional as F
import megengine.module as M
import megengine.optimizer as optim
import numpy as np
from megengine import Tensor

Padding = Tuple[Tuple[int, int], Tuple[int, int]]  # (top, bottom), (left, right)


class PlainOps:
    """MegEngine's own kernels, on any device. Maps are ``(N, C, H, W)``."""

    name = "MegEngine's kernels"

    def __deepcopy__(self, memo: Dict[int, object]) -> "PlainOps":
        return self  # for copies of a network, too

    def __reduce__(self) -> Tuple[type, tuple]:
        return PlainOps, ()  # where a pickled network is loaded, other kernels may be the best

    def normalize(
        self, images: np.ndarray, mean: np.ndarray, std: np.ndarray, whole: bool = False
    ) -> Tensor:
        """``(N, H, W, C)`` uint8 to ``(N, C, H, W)``: ``(x - mean) / std`` per channel.

        The result's values lie in memory as those of ``images`` do.

        Args:
            images: contiguous.
            mean, std: ``(C,)`` float32.
            whole: float32 also where maps are of fewer bits.
        """
        count, height, width, channels = images.shape
        # Whole rows of an image at a time: MegEngine is slow at a last axis of three.
        rows = Tensor(images.reshape(count * height, -1)).astype("float32")
        rows = (rows - Tensor(np.tile(mean, width))) / Tensor(np.tile(std, width))
        return rows.reshape(count, height, width, channels).transpose(0, 3, 1, 2)

    def conv(self, conv: M.Module, x: Tensor) -> Tensor:
        return conv(x)

    def norm(self, norm: M.Module, x: Tensor, relu: bool = False) -> Tensor:
        x = norm(x)
        return F.relu(x) if relu else x

    def conv_norm(
        self,
        conv: M.Module,
        norm: M.Module,
        x: Tensor,
        shortcut: Optional[Tensor] = None,
        relu: bool = False,
    ) -> Tensor:
        """``relu(norm(conv(x)) + shortcut)``, without what is not given."""
        x = self.conv(conv, x)
        if shortcut is None:
            return self.norm(norm, x, relu)
        return self.add(self.norm(norm, x), shortcut, relu)

    def fork(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        """``x`` for each of two branches."""
        return x, x

    def add(self, x: Tensor, shortcut: Tensor, relu: bool = False) -> Tensor:
        x = x + shortcut
        return F.relu(x) if relu else x

    def max_pool(self, x: Tensor, kernel: int, stride: int, padding: Padding) -> Tensor:
        """Over squares of ``kernel`` pixels; what lies beyond the map never wins."""
        if any(before != after for before, after in padding):
            x = F.nn.pad(x, ((0, 0), (0, 0), *padding), constant_value=-float("inf"))
            padding = ((0, 0), (0, 0))
        return F.nn.max_pool2d(x, kernel, stride, [after for _, after in padding])

    def halve(self, x: Tensor) -> Tensor:
        """The mean over each 2x2 square, or over what is there of it at an odd map's end."""
        odd = (x.shape[2] % 2, x.shape[3] % 2)
        if any(odd):
            # The mean of pixels and their copies is the mean of the pixels.
            x = F.nn.pad(x, ((0, 0), (0, 0), (0, odd[0]), (0, odd[1])), mode="replicate")
        return F.nn.avg_pool2d(x, 2, 2)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of each map, ``(N, C)``."""
        return x.mean(axis=(2, 3))

    def subsample(self, x: Tensor, stride: int, before: int = 0, after: int = 0) -> Tensor:
        """Every ``stride``-th pixel, with channels of zeros before and after those of ``x``."""
        if stride != 1:
            x = x[:, :, ::stride, ::stride]
        if before or after:
            x = F.nn.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
        return x

    def linear(self, linear: M.Linear, x: Tensor) -> Tensor:
        return linear(x)

    def sgd(
        self, groups: Iterable[Dict[str, Any]], lr: float, momentum: float, nesterov: bool
    ) -> optim.SGD:
        """The optimizer of a network that computes with these operations."""
        return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)

    def adapt(
        self, weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, by: "Adaptation"
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Weight, mean and square after a step of AdamW or LAMB, whose papers have the names."""
        (beta1, beta2), step = by.betas, by.step
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * (gradient * gradient)
        root = F.sqrt(square) / math.sqrt(1 - beta2**step)
        update = (mean / (1 - beta1**step)) / (root + by.eps)
        if by.decay:
            update = update + by.decay * weight
        if by.trust:
            update = update * _trust_ratio(weight, update)
        return weight - by.rate * update, mean, square

    def whole(self, network: "Layer", method: Callable, x: Tensor) -> Any:
        """``method(network, x)``, which other operations may have compiled."""
        return method(network, x)

    def lerp(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        """``start + share (end - start)``, tensors of one shape and a share of shape (1,)."""
        return start + share * (end - start)


class Adaptation(NamedTuple):
    """What a step of AdamW or LAMB is taken with; ``step`` counts from 1."""

    rate: float
    betas: Tuple[float, float]
    eps: float
    decay: float
    step: float
    trust: bool  # whether the update is scaled to the length of the weights


def l2_norm(x: Tensor) -> Tensor:
    """The root of the sum of squares, of shape ()."""
    flat = x.flatten()
    return F.sqrt((flat * flat).sum())


def _trust_ratio(weight: Tensor, update: Tensor) -> Tensor:
    weight_norm, update_norm = l2_norm(weight), l2_norm(update)
    defined = F.logical_and(weight_norm > 0, update_norm > 0)
    return F.where(defined, weight_norm / update_norm, F.ones_like(weight_norm))


class Layer(M.Module):
    """A module that computes by ``self.ops``."""

    ops = PlainOps()


def compute_by(model: M.Module, ops: PlainOps) -> None:
    """Let every layer of ``model`` compute by ``ops``."""
    for module in model.modules():
        if isinstance(module, Layer):
            module.ops = ops


def whole(method: Callable) -> Callable:
    """Let a network's operations know that this method of one map is what is wanted of it."""

    @functools.wraps(method)
    def compute(network: Layer, x: Tensor) -> Any:
        return network.ops.whole(network, method, x)

    return compute
