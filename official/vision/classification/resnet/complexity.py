"""Parameters and multiply-adds of a network, counted from its structure: no device, no hooks."""

import contextlib
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple
from unittest import mock

import megengine
import megengine.module as M
import numpy as np


@dataclass
class Cost:
    """A running total while one image passes through a network, and the map it has become.

    ``macs`` counts the multiply-adds of convolutions and linear layers. ``elementwise`` counts
    what MMPreTrain's tables add to them: 2 per element for a normalisation, 1 for a ReLU and
    1 per input element for a pooling, so that ``macs + elementwise`` is their "FLOPs".
    """

    channels: int
    height: int
    width: int
    params: int = 0
    macs: int = 0
    elementwise: int = 0

    @property
    def elements(self) -> int:
        return self.channels * self.height * self.width

    def conv(self, conv: M.Conv2d) -> "Cost":
        self._slide(conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        self.channels = conv.out_channels
        kernel_height, kernel_width = conv.kernel_size
        weights = (
            conv.out_channels * (conv.in_channels // conv.groups) * kernel_height * kernel_width
        )
        self.params += weights + (conv.out_channels if conv.bias is not None else 0)
        self.macs += weights * self.height * self.width
        return self

    def norm(self, norm: M.Module) -> "Cost":
        if getattr(norm, "weight", None) is not None:  # a scale and a shift per channel
            self.params += 2 * self.channels
        self.elementwise += 2 * self.elements
        return self

    def relu(self) -> "Cost":
        self.elementwise += self.elements
        return self

    def max_pool(self, pool: M.MaxPool2d) -> "Cost":
        self.elementwise += self.elements
        self._slide(_pair(pool.kernel_size), _pair(pool.stride), _pair(pool.padding), (1, 1))
        return self

    def global_pool(self) -> "Cost":
        self.elementwise += self.elements
        self.height = self.width = 1
        return self

    def linear(self, linear: M.Linear) -> "Cost":
        weights = linear.in_features * linear.out_features
        self.params += weights + (linear.out_features if linear.bias is not None else 0)
        self.macs += weights
        self.channels = linear.out_features
        return self

    def halving_pool(self) -> "Cost":
        """A pooling of 2x2 squares that keeps what is left over at an odd edge."""
        self.elementwise += self.elements
        self.height, self.width = (self.height + 1) // 2, (self.width + 1) // 2
        return self

    def sequence(self, modules: M.Module) -> "Cost":
        """One layer, or several in a row, of the kinds that stems and shortcuts have."""
        for module in modules if isinstance(modules, M.Sequential) else (modules,):
            if isinstance(module, M.Conv2d):
                self.conv(module)
            elif isinstance(module, M.ReLU):
                self.relu()
            elif isinstance(module, M.MaxPool2d):
                self.max_pool(module)
            elif hasattr(module, "complexity"):
                module.complexity(self)
            elif not isinstance(module, M.Identity):
                self.norm(module)
        return self

    def branch(self) -> "Cost":
        """A second path that starts where this one is now."""
        return replace(self, params=0, macs=0, elementwise=0)

    def join(self, other: "Cost") -> "Cost":
        """Add what another path cost; both must end in the same shape."""
        mine = (self.channels, self.height, self.width)
        theirs = (other.channels, other.height, other.width)
        if mine != theirs:
            raise ValueError(f"branches end in different shapes: {mine} and {theirs}")
        self.params += other.params
        self.macs += other.macs
        self.elementwise += other.elementwise
        return self

    def _slide(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> None:
        size = zip((self.height, self.width), kernel, stride, padding, dilation)
        self.height, self.width = (
            (length + 2 * pad - spread * (k - 1) - 1) // step + 1
            for length, k, step, pad, spread in size
        )


def complexity(
    model: M.Module, height: int, width: Optional[int] = None, in_channels: int = 3
) -> Cost:
    """What one ``(in_channels, height, width)`` image costs in ``model``."""
    cost = Cost(in_channels, height, width or height)
    model.complexity(cost)
    return cost


@contextlib.contextmanager
def without_weights() -> Iterator[None]:
    """Build networks within this block of which only the structure is wanted.

    Their filters and classifiers take no memory and no time: ResNeXt-101 32x48d has 3.3 GB of them.
    MegEngine's own classes are changed for as long, so nothing else may be built meanwhile.
    """
    with contextlib.ExitStack() as stack:
        for name in (name for name in vars(M.init) if name.endswith("_") and name[0] != "_"):
            stack.enter_context(mock.patch.object(M.init, name, lambda *args, **kwargs: None))
        for module in (M.conv, M.linear):
            stack.enter_context(mock.patch.object(module, "Parameter", _shape))
        yield


def tensor_shapes(build: Callable[[], M.Module]) -> Dict[str, Tuple[int, ...]]:
    """Names and shapes of the parameters and statistics of what ``build`` makes without them."""
    with without_weights():
        network = build()
    return {
        f"{name}.{key}": tuple(value.shape)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (np.ndarray, megengine.Tensor))
    }


def _shape(value: np.ndarray) -> Any:
    """An array of this shape that is one number in memory."""
    return np.broadcast_to(np.float32(0), value.shape)


def _pair(value: object) -> Tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
