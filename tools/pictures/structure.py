"""What a network is made of, as one image that passes through it shows.

Every layer computes by its ``ops``; here they note what they are asked for.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Dict, List, Sequence, Tuple

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor

from official.vision.classification.ops.plain import Layer, Padding, PlainOps


@dataclass(frozen=True)
class Step:
    """An operation of the forward pass.

    Args:
        layer: name of the module that computed it, "" for the network itself.
        kind: conv, norm, relu, add, pool, subsample or linear.
        text: kernel, stride and channels: ``"3×3/2, 64"``.
        note: what else there is to say.
        inputs, output: numbers of tensors.
        shape: of the output.
    """

    layer: str
    kind: str
    text: str
    note: str
    inputs: Tuple[int, ...]
    output: int
    shape: Tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """A residual block: ``after(branch(x) + shortcut(first fork steps of branch(x)))``."""

    branch: Tuple[Step, ...]
    fork: int
    shortcut: Tuple[Step, ...]
    after: Tuple[Step, ...]


@dataclass(frozen=True)
class Network:
    """A network's parts in order; ``stages`` are tuples of blocks."""

    stem: Tuple[Step, ...]
    stages: Tuple[Tuple[Block, ...], ...]
    head: Tuple[Step, ...]


class Tape:
    """The steps of a forward pass, and its tensors by number."""

    def __init__(self) -> None:
        self.steps: List[Step] = []
        self._tensors: List[Tensor] = []  # kept, so that no two have the same id
        self._numbers: Dict[int, int] = {}

    def number(self, x: Tensor) -> int:
        if id(x) not in self._numbers:
            self._numbers[id(x)] = len(self._tensors)
            self._tensors.append(x)
        return self._numbers[id(x)]

    def same(self, module: M.Module, inputs: Tuple[Tensor], output: Tensor) -> None:
        """A hook for identities, whose output is another tensor of the same values."""
        self._numbers[id(output)] = self.number(inputs[0])
        self._tensors.append(output)


class Recorder(PlainOps):
    """MegEngine's operations for one layer, each noted on a tape."""

    def __init__(self, layer: str, tape: Tape) -> None:
        self.layer = layer
        self.tape = tape

    def _note(self, kind: str, text: str, out: Tensor, *inputs: Tensor, note: str = "") -> Tensor:
        numbers = tuple(map(self.tape.number, inputs))
        output = self.tape.number(out)
        self.tape.steps.append(
            Step(self.layer, kind, text, note, numbers, output, tuple(out.shape))
        )
        return out

    def _relu(self, x: Tensor) -> Tensor:
        return self._note("relu", "ReLU", F.relu(x), x)

    def conv(self, conv: M.Module, x: Tensor) -> Tensor:
        if not isinstance(conv, M.Conv2d):  # a deep stem, whose layers have recorders themselves
            return super().conv(conv, x)
        note = f"{conv.groups} groups" if conv.groups > 1 else ""
        return self._note("conv", convolution(conv), super().conv(conv, x), x, note=note)

    def norm(self, norm: M.Module, x: Tensor, relu: bool = False) -> Tensor:
        text = "BN" if isinstance(norm, M.BatchNorm2d) else type(norm).__name__
        x = self._note("norm", text, super().norm(norm, x), x)
        return self._relu(x) if relu else x

    def add(self, x: Tensor, shortcut: Tensor, relu: bool = False) -> Tensor:
        x = self._note("add", "+", super().add(x, shortcut), x, shortcut)
        return self._relu(x) if relu else x

    def max_pool(self, x: Tensor, kernel: int, stride: int, padding: Padding) -> Tensor:
        out = super().max_pool(x, kernel, stride, padding)
        return self._note("pool", f"max {kernel}×{kernel}/{stride}", out, x)

    def halve(self, x: Tensor) -> Tensor:
        return self._note("pool", "mean 2×2/2", super().halve(x), x)

    def mean(self, x: Tensor) -> Tensor:
        return self._note("pool", f"mean {x.shape[2]}×{x.shape[3]}", super().mean(x), x)

    def subsample(self, x: Tensor, stride: int, before: int = 0, after: int = 0) -> Tensor:
        out = super().subsample(x, stride, before, after)
        if out is x:
            return x
        zeros = f"{before}+{after} zero maps" if before or after else ""
        return self._note("subsample", f"subsample/{stride}", out, x, note=zeros)

    def linear(self, linear: M.Linear, x: Tensor) -> Tensor:
        return self._note("linear", f"linear, {linear.out_features}", super().linear(linear, x), x)


def convolution(conv: M.Conv2d) -> str:
    """Kernel, stride and channels."""
    height, width = conv.kernel_size
    stride = "" if conv.stride == (1, 1) else f"/{conv.stride[0]}"
    return f"{height}×{width}{stride}, {conv.out_channels}"


def read(model: M.Module, pixels: int) -> Network:
    """Pass one image through ``model``, which stays in evaluation mode, and see what happens.

    Raises:
        ValueError: for a block with an operation that is not one of its ``ops``.
    """
    tape = Tape()
    for name, module in model.named_modules():
        if isinstance(module, Layer):
            module.ops = Recorder(name, tape)
        elif isinstance(module, M.Identity):
            module.register_forward_hook(tape.same)
    model.eval()
    model(Tensor(np.zeros((1, 3, pixels, pixels), np.float32)))

    stem, *blocks, head = (tuple(steps) for _, steps in groupby(tape.steps, _part))
    stages: Dict[str, List[Block]] = {}
    entry = stem[-1].output
    for steps in blocks:
        stages.setdefault(steps[0].layer.split(".")[0], []).append(_block(steps, entry))
        entry = steps[-1].output
    return Network(stem, tuple(map(tuple, stages.values())), head)


def _part(step: Step) -> str:
    """``"layer1.0"`` for a step of a block, "" for one of the stem or the head."""
    return ".".join(step.layer.split(".")[:2]) if step.layer.startswith("layer") else ""


def _block(steps: Tuple[Step, ...], entry: int) -> Block:
    """Follow both inputs of the sum back: to the block's input, and to where they part."""
    by_output = {step.output: step for step in steps}
    (end,) = (step for step in steps if step.kind == "add")
    branch = _path(by_output, end.inputs[0], stop=())
    reached = [step.inputs[0] for step in branch]  # what each step of the branch starts from
    shortcut = _path(by_output, end.inputs[1], stop=reached)
    start = shortcut[0].inputs[0] if shortcut else end.inputs[1]
    after = steps[steps.index(end) + 1 :]
    rest = zip((end, *after), after)
    known = all(step.inputs == (before.output,) for before, step in rest)
    if not known or reached[0] != entry or start not in reached:
        raise ValueError(f"{end.layer}: it computes something that is not one of its ops")
    return Block(branch, reached.index(start), shortcut, after)


def _path(by_output: Dict[int, Step], tensor: int, stop: Sequence[int]) -> Tuple[Step, ...]:
    """The steps that lead to ``tensor`` from one of ``stop``, or from outside of the block."""
    path: List[Step] = []
    while tensor in by_output and tensor not in stop:
        path.insert(0, by_output[tensor])
        (tensor,) = path[0].inputs
    return tuple(path)
