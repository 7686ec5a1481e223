"""The operations of a network by the native kernels: on a CPU, at the speed of its arithmetic.

Convolutions are oneDNN's, the others are in ``native/``. What a layer is used for beyond that (an
own norm, padding that is not zeros) stays MegEngine's: the values in memory are in another order,
but the tensors are ordinary ones.
"""

import functools
import logging
import math
from typing import Any, Callable, Dict, Iterable, Optional, Tuple

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.core.tensor.dtype import bfloat16
from megengine.distributed import is_distributed
from megengine.jit.tracing import is_tracing

from .build import Kernels
from .compiled import Compiled, Compiler, require_instructions
from .functions import (
    Add,
    BatchNorm,
    Convolve,
    Fork,
    Halve,
    MaxPool,
    Mean,
    Subsample,
    needs_gradient,
    to_maps,
    to_rows,
)
from .plain import Adaptation, Padding, PlainOps
from .sgd import NativeSGD

logger = logging.getLogger(__name__)


@functools.lru_cache(maxsize=16)
def adaptation_numbers(by: Adaptation) -> Tensor:
    """As the kernel takes them; all tensors of a group share them in a step."""
    (beta1, beta2), step = by.betas, by.step
    shares = (1 - beta1**step, math.sqrt(1 - beta2**step))
    return Tensor(np.array([by.rate, beta1, beta2, by.eps, by.decay, *shares], np.float32))


def _eager(method: Callable) -> Callable:
    """Leave a function that ``megengine.jit.trace`` records to MegEngine's own kernels.

    Recording a custom operator fails now and then (MegEngine 1.13: "an input tensor is unusable").
    """

    @functools.wraps(method)
    def compute(ops: "NativeOps", *args: object, **kwargs: object) -> object:
        if is_tracing():
            ops.tell_of_tracing()
            return getattr(PlainOps, method.__name__)(ops, *args, **kwargs)
        return method(ops, *args, **kwargs)

    return compute


class NativeOps(PlainOps):
    """``PlainOps`` with the same results up to rounding.

    In evaluation, where no gradients are wanted, a network is compiled (plan.py). What cannot be is
    computed layer by layer, with a batch normalisation folded into the convolution before it.
    """

    def __init__(self, kernels: Kernels, half: bool = False):
        """``half`` rounds maps to bfloat16; weights, statistics and their gradients stay float32.

        Raises:
            ValueError: for ``half`` on a CPU that has no instructions for it.
        """
        if half:
            require_instructions(kernels, "bf16")
        self.kernels = kernels
        self.half = half
        number = "bfloat16" if half else "float32"
        self.name = f"native kernels in {number}, {kernels.threads} thread(s)"
        self._told_of_tracing = False
        self._compiler = Compiler(kernels, "bf16" if half else "fp32")

    def tell_of_tracing(self) -> None:
        """Remark, once, on what a traced function computes with."""
        if not self._told_of_tracing:
            logger.warning("megengine.jit.trace records MegEngine's kernels, not the native ones")
        self._told_of_tracing = True

    def compiled(self, network: M.Module) -> Compiled:
        """The plans by which a network is computed in evaluation."""
        return self._compiler.compiled(network)

    @_eager
    def whole(self, network: M.Module, method: Callable, x: Any) -> Any:
        return self._compiler(network, method, x)

    @_eager
    def normalize(
        self, images: np.ndarray, mean: np.ndarray, std: np.ndarray, whole: bool = False
    ) -> Tensor:
        operands = (Tensor(images), Tensor(mean), Tensor(std))
        half = int(self.half and not whole)
        return to_maps(*self.kernels("NormalizeImages", *operands, half=half))

    @_eager
    def conv(self, conv: M.Module, x: Tensor) -> Tensor:
        if not _is_plain_convolution(conv):
            return conv(self._whole(x))
        x = self._rounded(x)
        bias = () if conv.bias is None else (conv.bias,)
        return Convolve(self.kernels, _geometry(conv), needs_gradient(x))(x, conv.weight, *bias)

    @_eager
    def norm(self, norm: M.Module, x: Tensor, relu: bool = False) -> Tensor:
        return self._norm(norm, x, None, relu)

    @_eager
    def conv_norm(
        self,
        conv: M.Module,
        norm: M.Module,
        x: Tensor,
        shortcut: Optional[Tensor] = None,
        relu: bool = False,
    ) -> Tensor:
        if _folds(conv, norm):
            shortcuts = () if shortcut is None else (shortcut,)
            if not needs_gradient(x, conv.weight, norm.weight, norm.bias, *shortcuts):
                return self._folded(conv, norm, x, shortcut, relu)
        return self._norm(norm, self.conv(conv, x), shortcut, relu)

    @_eager
    def fork(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return Fork(self.kernels)(x) if needs_gradient(x) else (x, x)

    @_eager
    def add(self, x: Tensor, shortcut: Tensor, relu: bool = False) -> Tensor:
        return Add(self.kernels, relu)(self._rounded(x), self._rounded(shortcut))

    @_eager
    def max_pool(self, x: Tensor, kernel: int, stride: int, padding: Padding) -> Tensor:
        (top, bottom), (left, right) = padding
        around = {"top": top, "bottom": bottom, "left": left, "right": right}
        window = {"kernel": kernel, "stride": stride, **around}
        if not needs_gradient(x):
            return to_maps(*self.kernels("MaxPool", to_rows(x), **window))
        return MaxPool(self.kernels, window)(x)

    @_eager
    def halve(self, x: Tensor) -> Tensor:
        return Halve(self.kernels)(x)

    @_eager
    def mean(self, x: Tensor) -> Tensor:
        return Mean(self.kernels)(x)

    @_eager
    def subsample(self, x: Tensor, stride: int, before: int = 0, after: int = 0) -> Tensor:
        if stride == 1 and not before and not after:
            return x
        keep = {"stride": stride, "before": before, "after": after}
        return Subsample(self.kernels, keep)(x)

    @_eager
    def linear(self, linear: M.Linear, x: Tensor) -> Tensor:
        """A convolution of maps of one pixel."""
        weight = linear.weight.reshape((*linear.weight.shape, 1, 1))
        bias = () if linear.bias is None else (linear.bias,)
        x = x.reshape((*x.shape, 1, 1))
        return Convolve(self.kernels, _POINT, needs_gradient(x))(x, weight, *bias).reshape(
            (x.shape[0], linear.out_features)
        )

    def sgd(
        self, groups: Iterable[Dict[str, Any]], lr: float, momentum: float, nesterov: bool
    ) -> NativeSGD:
        return NativeSGD(self.kernels, groups, lr=lr, momentum=momentum, nesterov=nesterov)

    def adapt(
        self, weight: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, by: Adaptation
    ) -> Tuple[Tensor, Tensor, Tensor]:
        numbers = adaptation_numbers(by)
        tensors = (weight, gradient, mean, square, numbers)
        weight, mean, square = self.kernels("Adapt", *tensors, trust=int(by.trust))
        return weight, mean, square

    def lerp(self, start: Tensor, end: Tensor, share: Tensor) -> Tensor:
        return self.kernels("Lerp", start, end, share)[0]

    def _norm(self, norm: M.Module, x: Tensor, shortcut: Optional[Tensor], relu: bool) -> Tensor:
        if not _is_plain_norm(norm):
            x = norm(self._whole(x))
            if shortcut is not None:
                return self.add(x, self._whole(shortcut), relu)
            return F.relu(x) if relu else x
        x = self._rounded(x)
        shortcuts = () if shortcut is None else (self._rounded(shortcut),)
        if norm.training or not norm.track_running_stats:
            group = norm.group if type(norm) is M.SyncBatchNorm and is_distributed() else None
            function = BatchNorm(self.kernels, norm.eps, relu, group=group)
        else:
            moments = F.concat([norm.running_mean.reshape(1, -1), norm.running_var.reshape(1, -1)])
            function = BatchNorm(self.kernels, norm.eps, relu, moments)
        y = function(x, norm.weight, norm.bias, *shortcuts)
        if norm.training and norm.track_running_stats:
            self._update_running_statistics(norm, function)
        return y

    def _rounded(self, x: Tensor) -> Tensor:
        """A map of the type that all maps have here; MegEngine's layers return others."""
        if x.dtype not in (np.float32, bfloat16):  # such as images, which MegEngine takes, too
            x = x.astype("float32")
        return x.astype(bfloat16) if self.half and x.dtype == np.float32 else x

    def _whole(self, x: Tensor) -> Tensor:
        """What MegEngine's own layers take."""
        return x.astype("float32") if self.half else x

    def _update_running_statistics(self, norm: M.BatchNorm2d, function: BatchNorm) -> None:
        mean, variance = self.kernels(
            *("Running", norm.running_mean, norm.running_var, function.moments, function.pixels),
            momentum=norm.momentum,
        )
        norm.running_mean._reset(mean)
        norm.running_var._reset(variance)

    def _folded(
        self,
        conv: M.Conv2d,
        norm: M.BatchNorm2d,
        x: Tensor,
        shortcut: Optional[Tensor],
        relu: bool,
    ) -> Tensor:
        statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        weight, bias = self.kernels("Fold", conv.weight, *statistics, eps=norm.eps)
        shortcuts = () if shortcut is None else (to_rows(self._rounded(shortcut)),)
        name = "ConvBiasAdd" if shortcuts else "ConvBias"
        operands = (to_rows(self._rounded(x)), weight, bias, *shortcuts)
        return to_maps(*self.kernels(name, *operands, relu=int(relu), **_geometry(conv)))


_POINT = {
    "stride_h": 1,
    "stride_w": 1,
    "pad_h": 0,
    "pad_w": 0,
    "dilate_h": 1,
    "dilate_w": 1,
}


def _geometry(conv: M.Conv2d) -> Dict[str, int]:
    return {
        **dict(zip(("stride_h", "stride_w"), conv.stride)),
        **dict(zip(("pad_h", "pad_w"), conv.padding)),
        **dict(zip(("dilate_h", "dilate_w"), conv.dilation)),
    }


def _is_plain_convolution(conv: M.Module) -> bool:
    return type(conv) is M.Conv2d and conv.padding_mode == "zeros"


def _is_plain_norm(norm: M.Module) -> bool:
    return type(norm) in (M.BatchNorm2d, M.SyncBatchNorm) and norm.affine and not norm.freeze


def _folds(conv: M.Module, norm: M.Module) -> bool:
    """Whether the two are one convolution now."""
    return (
        _is_plain_convolution(conv)
        and conv.bias is None
        and _is_plain_norm(norm)
        and norm.track_running_stats
        and not norm.training
    )
