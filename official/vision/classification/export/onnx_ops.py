"""A network as an ONNX graph.

The network's own ``forward`` writes it: its layers compute by operations that note down ONNX nodes
instead of numbers. Images are ``(N, 3, H, W)`` with any N; H and W are fixed, because where a map
is padded depends on them. Operators: github.com/onnx/onnx, docs/Operators.md.
"""

from dataclasses import dataclass
from typing import Any, List, Tuple

import megengine.module as M
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..ops.folding import FoldingOps, computing_by
from ..ops.plain import Padding
from ..zoo.trained import Network
from ..zoo.weights import DESCRIPTION
from .description import INPUT, OUTPUT, describe, input_shape

OPSET = 15  # the first with today's BatchNormalization; runtimes since 2021 have it
IR_VERSION = 8  # of the file format, of the same time
BATCH = "N"  # how the batch dimension is called


@dataclass(frozen=True)
class Value:
    """A tensor of the graph; its first dimension is ``BATCH``."""

    name: str
    shape: Tuple[Any, ...]


class OnnxOps(FoldingOps):
    """Notes down nodes and constants; every operation returns a ``Value``."""

    name = "ONNX"

    def __init__(self, model: M.Module):
        self.nodes: List[onnx.NodeProto] = []
        self.constants: List[onnx.TensorProto] = []
        self._names = {id(module): name for name, module in model.named_modules()}

    def convolve(self, conv: M.Conv2d, x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        weight = weight.reshape(-1, *weight.shape[-3:])  # groups are no dimension of their own
        (kernel_h, kernel_w), (pad_h, pad_w) = conv.kernel_size, conv.padding
        height, width = (
            (size + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for size, pad, dilation, kernel, stride in zip(
                x.shape[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride
            )
        )
        return self._node(
            "Conv",
            [x.name, *self._weights(conv, weight=weight, bias=bias)],
            (BATCH, len(weight), height, width),
            kernel_shape=[kernel_h, kernel_w],
            strides=list(conv.stride),
            pads=[pad_h, pad_w, pad_h, pad_w],
            dilations=list(conv.dilation),
            group=conv.groups,
        )

    def affine(self, norm: M.Module, x: Value, scale: np.ndarray, shift: np.ndarray) -> Value:
        zeros, ones = np.zeros_like(scale), np.ones_like(scale)
        weights = self._weights(norm, weight=scale, bias=shift, mean=zeros, var=ones)
        return self._node("BatchNormalization", [x.name, *weights], x.shape, epsilon=0.0)

    def relu(self, x: Value) -> Value:
        return self._node("Relu", [x.name], x.shape)

    def sum(self, x: Value, shortcut: Value) -> Value:
        return self._node("Add", [x.name, shortcut.name], x.shape)

    def max_pool(self, x: Value, kernel: int, stride: int, padding: Padding) -> Value:
        size = tuple(
            (length + before + after - kernel) // stride + 1
            for length, (before, after) in zip(x.shape[2:], padding)
        )
        (top, bottom), (left, right) = padding
        return self._node(
            "MaxPool",
            [x.name],
            (*x.shape[:2], *size),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[top, left, bottom, right],
        )

    def halve(self, x: Value) -> Value:
        height, width = x.shape[2:]
        return self._node(
            "AveragePool",
            [x.name],
            (*x.shape[:2], -(-height // 2), -(-width // 2)),
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[0, 0, height % 2, width % 2],
            count_include_pad=0,
        )

    def mean(self, x: Value) -> Value:
        pooled = self._node("GlobalAveragePool", [x.name], (*x.shape[:2], 1, 1))
        return self._node("Flatten", [pooled.name], x.shape[:2])

    def subsample(self, x: Value, stride: int, before: int = 0, after: int = 0) -> Value:
        batch, channels, *size = x.shape
        if stride != 1:
            ranges = {"starts": [0, 0], "ends": size, "axes": [2, 3], "steps": [stride, stride]}
            size = [-(-length // stride) for length in size]
            x = self._node("Slice", [x.name, *self._integers(ranges)], (batch, channels, *size))
        if before or after:
            pads = self._integers({"pads": [0, before, 0, 0, 0, after, 0, 0]})
            x = self._node("Pad", [x.name, *pads], (batch, before + channels + after, *size))
        return x

    def matmul(self, linear: M.Linear, x: Value, weight: np.ndarray, bias: np.ndarray) -> Value:
        weights = self._weights(linear, weight=weight, bias=bias)
        return self._node("Gemm", [x.name, *weights], (BATCH, len(weight)), transB=1)

    def _node(self, kind: str, inputs: List[str], shape: Tuple[Any, ...], **how: Any) -> Value:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **how))
        return Value(name, shape)

    def _weights(self, layer: M.Module, **arrays: np.ndarray) -> List[str]:
        """Constants, called as the layer's own."""
        owner = self._names[id(layer)]
        return [self._constant(f"{owner}.{name}", array) for name, array in arrays.items()]

    def _integers(self, lists: Any) -> List[str]:
        """Constants that belong to the next node."""
        return [
            self._constant(f"{name}_{len(self.nodes)}", np.array(values, np.int64))
            for name, values in lists.items()
        ]

    def _constant(self, name: str, array: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def onnx_model(network: Network, precision: str) -> bytes:
    """The content of an ONNX file with input ``images`` and output ``logits``.

    Args:
        network: its model computes by ``ops``, as all networks of the project do.
        precision: what the file's description says of its arithmetic.

    Raises:
        ValueError: for normalisations other than batch normalisation.
    """
    ops = OnnxOps(network.model)
    shape = (BATCH, *input_shape(network))
    with computing_by(network.model, ops):
        logits = network.model(Value(INPUT, shape))
    ops.nodes[-1].output[0] = OUTPUT
    graph = helper.make_graph(
        ops.nodes,
        network.arch,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, logits.shape)],
        ops.constants,
    )
    model = helper.make_model(
        graph,
        producer_name="ResNet for MegEngine",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return described(model.SerializeToString(), describe(network, precision))


def described(data: bytes, description: str) -> bytes:
    """The content of an ONNX file with ``description`` in its ``metadata_props``."""
    model = onnx.load_model_from_string(data)
    helper.set_model_props(model, {DESCRIPTION: description})
    return model.SerializeToString()
