"""Int8 by post-training quantisation: onnxruntime's own static quantiser.

Source: onnxruntime.ai, "Quantize ONNX models". Weights are signed with a scale for each output
channel, maps unsigned with one for each tensor, taken from the least and the largest value that
the calibration images give. That is the fastest combination on x86-64 CPUs. Weights keep to 7
bits, since processors without VNNI instructions add two products in 16 bits, which 8 bits
overflow.
"""

import tempfile
from pathlib import Path
from typing import Dict, Iterable, Optional

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from .description import INPUT


class _Reader(CalibrationDataReader):
    def __init__(self, batches: Iterable[np.ndarray]):
        self._batches = iter(batches)

    def get_next(self) -> Optional[Dict[str, np.ndarray]]:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def quantize(data: bytes, batches: Iterable[np.ndarray]) -> bytes:
    """The content of an ONNX file that computes in int8.

    Args:
        data: the content of a float32 one.
        batches: ``(N, 3, H, W)`` float32 images to calibrate on, as the network gets them.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (Path(folder, name) for name in ("fp32", "prepared", "int8"))
        source.write_bytes(data)
        # A normalisation that could not be folded stays in float32: its scales are too different.
        graph = onnx.load_model_from_string(data).graph
        floating = [node.name for node in graph.node if node.op_type == "BatchNormalization"]
        # Symbolic shape inference is for what plain shape inference leaves open, which is nothing.
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            _Reader(batches),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=floating,
        )
        return result.read_bytes()
