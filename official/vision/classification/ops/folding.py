"""A network's operations with the normalisations folded into the convolutions before them.

In evaluation a batch normalisation is ``scale * x + shift`` per channel (Ioffe and Szegedy,
arXiv:1502.03167, section 3.1), so it can be part of the convolution's filter and bias. All of it
is computed in float64 and rounded once.
"""

import contextlib
import copy
from typing import Any, Iterator, Optional, Tuple

import megengine.module as M
import numpy as np

from .plain import PlainOps, compute_by

BATCH_NORMS = (M.BatchNorm2d, M.SyncBatchNorm)


class FoldingOps(PlainOps):
    """What a network computes in evaluation, put down to a few operations with constants.

    A subclass has ``convolve``, ``affine``, ``relu``, ``matmul`` and, unless those of PlainOps
    will do, ``sum`` and the operations on maps. Maps may be of any kind; of their attributes a
    network reads ``shape`` only.
    """

    def folded(self, conv: M.Module, norm: Optional[M.Module]) -> Tuple[np.ndarray, np.ndarray]:
        """Weight, in the shape it has, and bias, ``(C,)``, of a convolution or linear layer."""
        return folded(conv, norm)

    def scaled(self, norm: M.Module) -> Tuple[np.ndarray, np.ndarray]:
        """Scale and shift, ``(C,)``, of a normalisation by itself."""
        scale, shift = scale_and_shift(norm)
        return scale.astype(np.float32), shift.astype(np.float32)

    def convolve(self, conv: M.Conv2d, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        """The convolution ``conv`` with another filter, in its shape, and a bias, ``(C,)``."""
        raise NotImplementedError

    def affine(self, norm: M.Module, x: Any, scale: np.ndarray, shift: np.ndarray) -> Any:
        """``scale * x + shift`` in the place of ``norm``; both are ``(C,)``."""
        raise NotImplementedError

    def relu(self, x: Any) -> Any:
        raise NotImplementedError

    def sum(self, x: Any, shortcut: Any) -> Any:
        return x + shortcut

    def matmul(self, linear: M.Linear, x: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
        """``x @ weight.T + bias`` in the place of ``linear``; ``x`` is ``(N, C)``."""
        raise NotImplementedError

    def conv(self, conv: M.Module, x: Any) -> Any:
        if not isinstance(conv, M.Conv2d):
            return conv(x)
        return self.convolve(conv, x, *self.folded(conv, None))

    def norm(self, norm: M.Module, x: Any, relu: bool = False) -> Any:
        x = self.affine(norm, x, *self.scaled(norm))
        return self.relu(x) if relu else x

    def conv_norm(
        self,
        conv: M.Module,
        norm: M.Module,
        x: Any,
        shortcut: Optional[Any] = None,
        relu: bool = False,
    ) -> Any:
        if isinstance(conv, M.Sequential):  # a deep stem, of which the last layer is a convolution
            stem, conv = copy.copy(conv), list(conv)[-1]
            stem.layer_keys = stem.layer_keys[:-1]
            x = stem(x)
        x = self.convolve(conv, x, *self.folded(conv, norm))
        if shortcut is not None:
            return self.add(x, shortcut, relu)
        return self.relu(x) if relu else x

    def add(self, x: Any, shortcut: Any, relu: bool = False) -> Any:
        x = self.sum(x, shortcut)
        return self.relu(x) if relu else x

    def linear(self, linear: M.Linear, x: Any) -> Any:
        return self.matmul(linear, x, *self.folded(linear, None))


def folded(conv: M.Module, norm: Optional[M.Module]) -> Tuple[np.ndarray, np.ndarray]:
    """Weight, in the shape it has, and bias, ``(C,)``, of ``conv`` with ``norm`` after it.

    Raises:
        ValueError: as ``scale_and_shift``.
    """
    if norm is None:
        weight = conv.weight.numpy()
        count = weight.shape[0] if weight.ndim < 5 else weight.shape[0] * weight.shape[1]
        bias = np.zeros(count) if conv.bias is None else conv.bias.numpy().ravel()
        return weight, bias.astype(np.float32)
    scale, shift = scale_and_shift(norm)
    weight = conv.weight.numpy().astype(np.float64)
    if conv.bias is not None:
        shift = shift + scale * conv.bias.numpy().ravel()
    weight = weight.reshape(len(scale), -1) * scale[:, None]
    return weight.reshape(conv.weight.shape).astype(np.float32), shift.astype(np.float32)


def scale_and_shift(norm: M.Module) -> Tuple[np.ndarray, np.ndarray]:
    """What a normalisation does to each channel in evaluation, ``(C,)`` float64 each.

    Raises:
        ValueError: when it is no batch normalisation with statistics and an affine part.
    """
    statistics = None
    if isinstance(norm, BATCH_NORMS):
        statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if statistics is None or any(value is None for value in statistics):
        raise ValueError(f"{norm!r} cannot be folded: only batch normalisation can")
    weight, bias, mean, variance = (
        value.numpy().astype(np.float64).ravel() for value in statistics
    )
    scale = weight / np.sqrt(variance + norm.eps)
    return scale, bias - scale * mean


@contextlib.contextmanager
def computing_by(model: M.Module, ops: PlainOps) -> Iterator[None]:
    """Let ``model`` compute by ``ops``, in evaluation mode, and then as before."""
    before, modes = model.ops, [(module, module.training) for module in model.modules()]
    identities = [module for module in model.modules() if isinstance(module, M.Identity)]
    compute_by(model, ops)
    model.eval()
    for identity in identities:  # MegEngine's makes a copy, which of other maps it cannot
        identity.forward = lambda x: x
    try:
        yield
    finally:
        for identity in identities:
            del identity.forward
        compute_by(model, before)
        for module, training in modes:
            module.training = training
