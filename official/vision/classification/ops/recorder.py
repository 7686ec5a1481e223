"""What a network computes in evaluation, as a list of nodes: its own ``forward`` writes it."""

import copy
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import megengine.module as M
import numpy as np
from megengine import Tensor

from .folding import FoldingOps
from .plain import Padding, compute_by
from .steps import (
    ADD,
    AFFINE,
    CONVOLVE,
    HALVE,
    MAX_POOL,
    MEAN,
    SUBSAMPLE,
)

# Folded weights by the tensors they are of. MegEngine reads tensors in the thread that imported it
# only; what is here is known to all.
Folds = Dict[Tuple[Optional[int], Optional[int]], Tuple[np.ndarray, np.ndarray]]


class CannotCompile(Exception):
    """Why a network has no plan, in one line."""


@dataclass(frozen=True, eq=False)
class Value:
    """A map ``(N, C, H, W)``, or ``(N, C)``, that some node makes."""

    shape: Tuple[int, ...]

    @property
    def size(self) -> Tuple[int, int, int, int]:
        """``(N, H, W, C)``; a vector is a map of one pixel."""
        count, channels, *size = self.shape
        height, width = size or (1, 1)
        return count, height, width, channels


@dataclass(eq=False)
class Node:
    """``y = relu(kind(x) + add)``; what is not there is None or False."""

    kind: int
    x: Value
    y: Value
    add: Optional[Value] = None
    relu: bool = False
    weight: np.ndarray = field(default_factory=lambda: np.empty(0))  # (O, I / groups, kh, kw)
    scale: Optional[np.ndarray] = None
    bias: Optional[np.ndarray] = None
    window: Dict[str, Any] = field(default_factory=dict)


def record(
    network: M.Module, tensors: Sequence[Tensor], compute: Callable, x: Value, folds: Folds
) -> Tuple[List[Node], Dict[str, Value]]:
    """The nodes of ``compute(network, x)`` in evaluation, and its results by name.

    A copy of the network, with the same ``tensors``, is walked: threads that use the network see
    nothing of it.

    Raises:
        CannotCompile: when it does what is not known here.
    """
    recorder = Recorder(folds)
    try:
        walked = copy.deepcopy(network, {id(each): each for each in tensors})
        compute_by(walked, recorder)
        walked.eval()
        for module in walked.modules():
            if isinstance(module, M.Identity):  # MegEngine's makes a copy
                module.forward = lambda x: x
        result = compute(walked, x)
    except (ValueError, AttributeError, TypeError, RuntimeError) as reason:
        raise CannotCompile(_said(reason)) from None
    outputs = result if isinstance(result, dict) else {"": result}
    if not outputs or not all(isinstance(each, Value) for each in outputs.values()):
        raise CannotCompile(f"it returns {type(result).__name__}")
    return recorder.nodes, outputs


def _said(reason: Exception) -> str:
    first = (str(reason).splitlines() or [""])[0]
    if first.startswith("assertion `depth"):
        return "its weights are not known: use it first in the thread that imported MegEngine"
    return first or type(reason).__name__


class Recorder(FoldingOps):
    """Notes down nodes; every operation returns a ``Value``."""

    name = "nothing: it notes down"

    def __init__(self, folds: Folds) -> None:
        self.nodes: List[Node] = []
        self._folds = folds
        self._absorbed: List[Value] = []  # those that a later node has made part of itself

    def folded(self, conv: M.Module, norm: Optional[M.Module]) -> Tuple[np.ndarray, np.ndarray]:
        key = (id(conv.weight), None if norm is None else id(getattr(norm, "weight", norm)))
        if key not in self._folds:
            self._folds[key] = super().folded(conv, norm)
        return self._folds[key]

    def scaled(self, norm: M.Module) -> Tuple[np.ndarray, np.ndarray]:
        key = (None, id(getattr(norm, "weight", norm)))
        if key not in self._folds:
            self._folds[key] = super().scaled(norm)
        return self._folds[key]

    def convolve(self, conv: M.Conv2d, x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        if type(conv) is not M.Conv2d or conv.padding_mode != "zeros":
            raise CannotCompile(f"{type(conv).__name__} is no plain convolution")
        weight = weight.reshape(-1, *weight.shape[-3:])  # groups are no dimension of their own
        if x.shape[1] != weight.shape[1] * conv.groups:
            raise CannotCompile(f"{x.shape[1]} channels for a convolution of {conv.in_channels}")
        size = (
            (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for length, pad, dilation, kernel, stride in zip(
                x.shape[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride
            )
        )
        return self._node(
            CONVOLVE,
            x,
            (x.shape[0], len(weight), *size),
            weight=weight,
            bias=bias,
            window={
                "kernel": tuple(conv.kernel_size),
                "stride": tuple(conv.stride),
                "padding": tuple(conv.padding),
                "dilation": tuple(conv.dilation),
                "groups": conv.groups,
            },
        )

    def affine(self, norm: M.Module, x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
        if x.shape[1] != len(scale):
            raise CannotCompile(f"{x.shape[1]} channels for a normalisation of {len(scale)}")
        return self._node(AFFINE, x, x.shape, scale=scale, bias=shift)

    def relu(self, x: Value) -> Value:
        self._last_of(x).relu = True
        return self._renamed(x)

    def sum(self, x: Value, shortcut: Value) -> Value:
        last = self.nodes[-1]
        free = last.kind == CONVOLVE and last.add is None and not last.relu
        if last.y is x and free and shortcut.shape == x.shape:
            last.add = self._used(shortcut)
            return self._renamed(x)
        return self._node(ADD, x, x.shape, add=self._used(shortcut))

    def matmul(self, linear: M.Linear, x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        if type(linear) is not M.Linear:
            raise CannotCompile(f"{type(linear).__name__} is no plain linear layer")
        if len(x.shape) != 2 or x.shape[1] != weight.shape[1]:
            raise CannotCompile(f"a map {x.shape} for a linear layer of {weight.shape[1]}")
        window = {"kernel": (1, 1), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
        shape = (x.shape[0], len(weight))
        return self._node(
            CONVOLVE, x, shape, weight=weight[:, :, None, None], bias=bias, window=window
        )

    def max_pool(self, x: Value, kernel: int, stride: int, padding: Padding) -> Value:
        size = (
            (length + before + after - kernel) // stride + 1
            for length, (before, after) in zip(x.shape[2:], padding)
        )
        window = {
            "kernel": (kernel, kernel),
            "stride": (stride, stride),
            "padding": tuple(before for before, _ in padding),
        }
        return self._node(MAX_POOL, x, (*x.shape[:2], *size), window=window)

    def halve(self, x: Value) -> Value:
        return self._node(HALVE, x, (*x.shape[:2], *(-(-length // 2) for length in x.shape[2:])))

    def mean(self, x: Value) -> Value:
        return self._node(MEAN, x, x.shape[:2])

    def subsample(self, x: Value, stride: int, before: int = 0, after: int = 0) -> Value:
        if stride == 1 and not before and not after:
            return x
        channels = before + x.shape[1] + after
        size = (-(-length // stride) for length in x.shape[2:])
        window = {"stride": (stride, stride), "before": before}
        return self._node(SUBSAMPLE, x, (x.shape[0], channels, *size), window=window)

    def _node(self, kind: int, x: Value, shape: Tuple[int, ...], **what: Any) -> Value:
        y = Value(tuple(shape))
        if min(y.shape) < 1:
            raise CannotCompile(f"a map of shape {y.shape}")
        if kind == ADD and what["add"].shape != shape:
            raise CannotCompile(f"a sum of maps {shape} and {what['add'].shape}")
        self.nodes.append(Node(kind, self._used(x), y, **what))
        return y

    def _used(self, value: Value) -> Value:
        if not isinstance(value, Value):
            raise CannotCompile(f"a layer made {type(value).__name__} of a map")
        if any(value is each for each in self._absorbed):
            raise CannotCompile("a map is used before and after its ReLU or sum")
        return value

    def _last_of(self, x: Value) -> Node:
        if self.nodes[-1].y is not x:
            raise CannotCompile("a ReLU of a map that was not made just before")
        return self.nodes[-1]

    def _renamed(self, x: Value) -> Value:
        """What the last node makes, now that it does more."""
        self._absorbed.append(x)
        self.nodes[-1].y = Value(x.shape)
        return self.nodes[-1].y
