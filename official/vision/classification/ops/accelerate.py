"""Which kernels a network computes with.

    attach(model, cpu_ops(threads=8))   # fast on a CPU
    detach(model)                       # MegEngine's own again

Parameters, their names and ``state_dict`` stay what they are.
"""

import logging
import os

import megengine.module as M

from .build import KernelsUnavailable, load_kernels
from .gemm import GemmOps
from .native import NativeOps
from .plain import Layer, PlainOps

SWITCH = "RESNET_KERNELS"
CPU = "cpu:default"

logger = logging.getLogger(__name__)


def cpu_ops(threads: int, half: bool = False) -> PlainOps:
    """The fastest operations there are on this machine's CPU.

    The environment variable RESNET_KERNELS asks for others: ``numpy`` or ``megengine``.

    Args:
        half: whether maps are rounded to bfloat16, which only the native kernels can.

    Raises:
        ValueError: for another value of the variable, or where ``half`` is not possible.
    """
    wanted = os.environ.get(SWITCH, "native")
    if wanted not in ("native", "numpy", "megengine"):
        raise ValueError(f"{SWITCH} must be native, numpy or megengine, got {wanted!r}")
    if half and wanted != "native":
        raise ValueError(f"precision bf16 needs the native kernels, and {SWITCH} is {wanted}")
    if wanted == "megengine":
        return PlainOps()
    if wanted == "numpy":
        return GemmOps()
    try:
        return NativeOps(load_kernels(threads), half)
    except KernelsUnavailable as reason:
        if half:
            raise ValueError(f"precision bf16 needs the native kernels: {reason}") from None
        logger.warning("no native kernels, so the CPU will be slow: %s", reason)
        return GemmOps()


def attach(model: M.Module, ops: PlainOps) -> M.Module:
    """Let every layer of ``model`` compute by ``ops``.

    Raises:
        ValueError: for native kernels where ``model`` is on another device than "cpu:default":
            MegEngine's other CPU devices reuse memory that a custom operator still reads.
    """
    if isinstance(ops, NativeOps):
        devices = {str(each.device) for each in model.parameters()}
        if devices - {CPU}:
            raise ValueError(f"native kernels work on {CPU!r} only; the model is on {devices}")
    for module in model.modules():
        if isinstance(module, Layer):
            module.ops = ops
    return model


def detach(model: M.Module) -> M.Module:
    """Undo ``attach``."""
    return attach(model, PlainOps())
