"""The native kernels as functions that MegEngine can differentiate.

Maps come and go as ``(N, C, H, W)`` tensors whose values lie in memory as ``(N, H, W, C)``: to the
kernels they are passed transposed, which copies nothing. MegEngine knows the strides of such a
tensor, so that any other operation may use it too.
"""

from typing import Dict, Optional, Tuple

import megengine.functional as F
import numpy as np
from megengine import Tensor
from megengine.autodiff import Function
from megengine.core._imperative_rt.core2 import apply, get_grad_key
from megengine.core.ops import builtin
from megengine.distributed import Group
from megengine.functional.distributed import all_reduce_sum

from .build import Kernels

_TO_ROWS = builtin.Dimshuffle((0, 2, 3, 1))
_TO_MAPS = builtin.Dimshuffle((0, 3, 1, 2))


def to_rows(maps: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H, W, C)``."""
    return apply(_TO_ROWS, maps)[0]


def to_maps(rows: Tensor) -> Tensor:
    """``(N, H, W, C)`` to ``(N, C, H, W)``."""
    return apply(_TO_MAPS, rows)[0]


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient with respect to one of them is being recorded."""
    return get_grad_key(tensors) is not None


class Convolve(Function):
    """``(N, I, H, W)``, weight and perhaps bias -> ``(N, O, H', W')``.

    Args:
        geometry: stride, padding and dilation, by the kernels' names for them.
        needs_dx: whether anybody wants the gradient of the input; of images nobody does.
    """

    def __init__(self, kernels: Kernels, geometry: Dict[str, int], needs_dx: bool):
        super().__init__()
        self.kernels, self.geometry, self.needs_dx = kernels, geometry, needs_dx

    def forward(self, x: Tensor, weight: Tensor, *bias: Tensor) -> Tensor:
        self.x, self.weight, self.bias = to_rows(x), weight, bias
        name = "ConvBias" if bias else "Conv"
        return to_maps(*self.kernels(name, self.x, weight, *bias, **self.geometry))

    def backward(self, dy: Tensor) -> Tuple[Optional[Tensor], ...]:
        dy = to_rows(dy)
        name = "ConvFilterBias" if self.bias else "ConvFilter"
        dweight, *dbias = self.kernels(name, self.x, dy, self.weight, **self.geometry)
        dbias = [dbias[0].reshape(each.shape) for each in self.bias]
        if not self.needs_dx:
            return (None, dweight, *dbias)
        size = {"height": self.x.shape[1], "width": self.x.shape[2]}
        (dx,) = self.kernels("ConvData", dy, self.weight, **size, **self.geometry)
        return (to_maps(dx), dweight, *dbias)


class BatchNorm(Function):
    """``(N, C, H, W)``, gamma, beta, perhaps a shortcut -> ``(N, C, H, W)``.

    ``y = relu((x - mean) / sqrt(variance + eps) * gamma + beta + shortcut)`` (Ioffe and Szegedy,
    arXiv:1502.03167). Mean and variance are ``moments``, ``(2, C)``, or else the statistics of this
    batch, over all ranks of ``group``; then ``moments`` has them (the variance the biased one)
    after the call, and ``pixels`` how many values each of them is of.
    """

    def __init__(
        self,
        kernels: Kernels,
        eps: float,
        relu: bool,
        moments: Optional[Tensor] = None,
        group: Optional[Group] = None,
    ):
        super().__init__()
        self.kernels, self.eps, self.relu = kernels, eps, relu
        self.moments, self.fixed, self.group = moments, moments is not None, group

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor, *shortcut: Tensor) -> Tensor:
        self.x, self.gamma = to_rows(x), gamma
        count, height, width, _ = self.x.shape
        self.pixels = Tensor(np.array([count * height * width], np.float32))
        if not self.fixed:
            (moments,) = self.kernels("Moments", self.x)
            self.moments = moments if self.group is None else self._over_all_ranks(moments)
        self.added = bool(shortcut)
        (y,) = self.kernels(
            *("NormalizeAdd" if shortcut else "Normalize", self.x, self.moments, gamma, beta),
            *map(to_rows, shortcut),
            relu=int(self.relu),
            eps=self.eps,
        )
        self.y = y if self.relu else None
        return to_maps(y)

    def _over_all_ranks(self, moments: Tensor) -> Tensor:
        """The mean and variance over all ranks, from those of each (Chan et al., 1979)."""
        mean, variance = moments[0], moments[1]
        total = all_reduce_sum(self.pixels, self.group)
        shared = all_reduce_sum(mean * self.pixels, self.group) / total
        spread = (variance + (mean - shared) ** 2) * self.pixels
        spread = all_reduce_sum(spread, self.group) / total
        self.pixels = total
        return F.stack([shared, spread])

    def backward(self, dy: Tensor) -> Tuple[Tensor, ...]:
        dy = to_rows(dy)
        suffix, active = ("Relu", (self.y,)) if self.relu else ("", ())
        operands = (dy, self.x, self.moments, *active)
        if self.added and self.relu:  # what passes the ReLU is the gradient of the shortcut, too
            sums, dy = self.kernels("NormSumsReluKeep", *operands)
            suffix, active = "", ()
        else:
            (sums,) = self.kernels("NormSums" + suffix, *operands)
        operands = (dy, self.x, self.moments, self.gamma, self._shared(sums), self.pixels, *active)
        (dx,) = self.kernels("NormData" + suffix, *operands, eps=self.eps)
        affine = (sums, self.moments, self.gamma)
        dgamma, dbeta = self.kernels("NormAffine", *affine, eps=self.eps)
        return (to_maps(dx), dgamma, dbeta, *((to_maps(dy),) if self.added else ()))

    def _shared(self, sums: Tensor) -> Tensor:
        """What ``x`` did to the moments is in its gradient by these sums."""
        if self.fixed:
            return F.zeros_like(sums)
        return sums if self.group is None else all_reduce_sum(sums, self.group)


class Fork(Function):
    """``x`` for two branches; their gradients are added natively."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        x = to_rows(x)
        return to_maps(x), to_maps(x)

    def backward(self, first: Tensor, second: Tensor) -> Tensor:
        if first is None or second is None:
            return second if first is None else first
        return to_maps(*self.kernels("Add", to_rows(first), to_rows(second), relu=0))


class Add(Function):
    """``x + shortcut``, or the ReLU of it."""

    def __init__(self, kernels: Kernels, relu: bool):
        super().__init__()
        self.kernels, self.relu = kernels, relu

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        (y,) = self.kernels("Add", to_rows(x), to_rows(shortcut), relu=int(self.relu))
        self.y = y if self.relu else None
        return to_maps(y)

    def backward(self, dy: Tensor) -> Tuple[Tensor, Tensor]:
        if self.relu:
            dy = to_maps(*self.kernels("ReluData", to_rows(dy), self.y))
        return dy, dy


class MaxPool(Function):
    """Square windows; pixels beyond the map never win."""

    def __init__(self, kernels: Kernels, window: Dict[str, int]):
        super().__init__()
        self.kernels, self.window = kernels, window

    def forward(self, x: Tensor) -> Tensor:
        x = to_rows(x)
        self.size = {"height": x.shape[1], "width": x.shape[2]}
        y, self.places = self.kernels("MaxPoolPlaces", x, **self.window)
        return to_maps(y)

    def backward(self, dy: Tensor) -> Tensor:
        dy = to_rows(dy)
        return to_maps(*self.kernels("MaxPoolData", dy, self.places, **self.size, **self.window))


class Halve(Function):
    """``(N, C, H, W)`` -> ``(N, C, ceil(H/2), ceil(W/2))``, means."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        x = to_rows(x)
        self.size = {"height": x.shape[1], "width": x.shape[2]}
        return to_maps(*self.kernels("Halve", x))

    def backward(self, dy: Tensor) -> Tensor:
        return to_maps(*self.kernels("HalveData", to_rows(dy), **self.size))


class Mean(Function):
    """``(N, C, H, W)`` -> ``(N, C)`` in float32."""

    def __init__(self, kernels: Kernels):
        super().__init__()
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        self.x = to_rows(x)
        return self.kernels("Mean", self.x)[0]

    def backward(self, dy: Tensor) -> Tensor:
        return to_maps(*self.kernels("MeanData", dy, self.x))


class Subsample(Function):
    """Every ``stride``-th pixel, with channels of zeros before and after."""

    def __init__(self, kernels: Kernels, keep: Dict[str, int]):
        super().__init__()
        self.kernels, self.keep = kernels, keep

    def forward(self, x: Tensor) -> Tensor:
        self.x = to_rows(x)
        return to_maps(*self.kernels("Subsample", self.x, **self.keep))

    def backward(self, dy: Tensor) -> Tensor:
        return to_maps(*self.kernels("SubsampleData", to_rows(dy), self.x, **self.keep))
