"""Convolution on a CPU with a filter gradient that does not crawl.

MegEngine 1.13's own filter gradient is a naive loop of 1 to 2 GFLOP/s, ten to fifty times slower
than the two other passes of the same layer; training time on a CPU is spent there. Here it is a
matrix product per kernel position, in numpy's BLAS. The other two passes stay MegEngine's.
"""

from typing import Optional, Tuple

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.autodiff import Function
from megengine.core._imperative_rt.core2 import apply, get_grad_key
from megengine.core.ops import builtin

from .plain import PlainOps


class GemmOps(PlainOps):
    """MegEngine's kernels but for that gradient."""

    name = "MegEngine's kernels, filter gradients by numpy"

    def conv(self, conv: M.Module, x: Tensor) -> Tensor:
        if type(conv) is not M.Conv2d or conv.padding_mode != "zeros":
            return conv(x)
        out = _Convolve(conv, needs_dx=get_grad_key((x,)) is not None)(x, conv.weight)
        return out if conv.bias is None else out + conv.bias


class _Convolve(Function):
    def __init__(self, layer: M.Conv2d, needs_dx: bool):
        super().__init__()
        self.layer = layer
        self.needs_dx = needs_dx  # not for the images themselves

    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        self.x, self.weight = x, weight
        layer = self.layer
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)

    def backward(self, dout: Tensor) -> Tuple[Optional[Tensor], Tensor]:
        layer = self.layer
        x, dout_values = self.x.numpy(), dout.numpy()
        # Queued, not waited for: MegEngine's own thread works on it while numpy does the other.
        dx = self._data_gradient(dout) if self.needs_dx else None
        dweight = filter_gradient(
            x,
            dout_values,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
        return dx, Tensor(dweight.reshape(self.weight.shape))

    def _data_gradient(self, dout: Tensor) -> Tensor:
        layer = self.layer
        (stride_h, stride_w), (pad_h, pad_w) = layer.stride, layer.padding
        gradient = builtin.ConvolutionBackwardData(
            stride_h=stride_h,
            stride_w=stride_w,
            pad_h=pad_h,
            pad_w=pad_w,
            dilate_h=layer.dilation[0],
            dilate_w=layer.dilation[1],
            sparse="dense" if layer.groups == 1 else "group",
        )
        shape = Tensor(np.array(self.x.shape, np.int32))
        return apply(gradient, self.weight, dout, shape)[0]


def filter_gradient(
    x: np.ndarray,
    dout: np.ndarray,
    kernel: Tuple[int, int],
    stride: Tuple[int, int],
    padding: Tuple[int, int],
    dilation: Tuple[int, int],
    groups: int,
) -> np.ndarray:
    """The gradient of a convolution's filter.

    ``x`` is ``(N, I, H, W)``, ``dout`` ``(N, O, H', W')``; returns ``(G, O/G, I/G, kh, kw)``.
    At kernel position (i, j) it is the product of ``dout`` with the pixels of ``x`` that this
    position met.
    """
    count, in_channels, height, width = x.shape
    out_channels, out_height, out_width = dout.shape[1:]
    padded = np.zeros(
        (in_channels, count, height + 2 * padding[0], width + 2 * padding[1]), x.dtype
    )
    padded[:, :, padding[0] : padding[0] + height, padding[1] : padding[1] + width] = x.transpose(
        1, 0, 2, 3
    )
    dout = np.ascontiguousarray(dout.transpose(1, 0, 2, 3))
    dout = dout.reshape(groups, out_channels // groups, -1)
    result = np.empty((*kernel, groups, out_channels // groups, in_channels // groups), np.float32)
    for i, j in np.ndindex(*kernel):
        top, left = i * dilation[0], j * dilation[1]
        met = padded[
            :,
            :,
            top : top + stride[0] * (out_height - 1) + 1 : stride[0],
            left : left + stride[1] * (out_width - 1) + 1 : stride[1],
        ]
        met = np.ascontiguousarray(met).reshape(groups, in_channels // groups, -1)
        np.matmul(dout, met.transpose(0, 2, 1), out=result[i, j])
    return np.ascontiguousarray(result.transpose(2, 3, 4, 0, 1))
