"""A network as a MegEngine graph (.mge), for MegEngine Lite and ``megengine.utils.network``."""

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import Iterator, Tuple

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor, jit
from megengine.core._imperative_rt.common import CompNode

from ..ops.folding import FoldingOps, computing_by
from .description import INPUT, OUTPUT

ANY_DEVICE = "xpux"  # whoever loads the file decides; constants must say the same as the input


class GraphOps(FoldingOps):
    """MegEngine's operations with constants that a graph for any device can hold."""

    name = "MegEngine's graph"

    def convolve(self, conv: M.Conv2d, x: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
        return F.conv2d(
            x,
            _constant(weight),
            _constant(bias.reshape(1, -1, 1, 1)),
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        )

    def affine(self, norm: M.Module, x: Tensor, scale: np.ndarray, shift: np.ndarray) -> Tensor:
        return x * _constant(scale.reshape(1, -1, 1, 1)) + _constant(shift.reshape(1, -1, 1, 1))

    def relu(self, x: Tensor) -> Tensor:
        return F.relu(x)

    def matmul(self, linear: M.Linear, x: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
        return F.linear(x, _constant(weight), _constant(bias))


def mge_model(model: M.Module, input_shape: Tuple[int, int, int]) -> bytes:
    """The content of a .mge with input ``images``, ``(N, *input_shape)``, and output ``logits``.

    N is any; maps may be padded as only this height and width need it.

    Raises:
        ValueError: for normalisations other than batch normalisation.
    """

    @jit.trace(symbolic=True, capture_as_const=True)
    def forward(images: Tensor) -> Tensor:
        return model(images)

    device = CompNode._get_default_device()
    CompNode._set_default_device(ANY_DEVICE)
    try:
        with _without_banner(), computing_by(model, GraphOps()):
            forward(_constant(np.zeros((2, *input_shape), np.float32)))
        file = io.BytesIO()
        forward.dump(
            file,
            arg_names=[INPUT],
            output_names=[OUTPUT],
            enable_fuse_conv_bias_nonlinearity=True,
        )
    finally:
        CompNode._set_default_device(device)
    return file.getvalue()


def _constant(values: np.ndarray) -> Tensor:
    return Tensor(values, device=ANY_DEVICE)


@contextlib.contextmanager
def _without_banner() -> Iterator[None]:
    """Keep off stderr what MegEngine's C++ part has to say where there is no GPU."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
