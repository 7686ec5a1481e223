"""Which kernels a network computes with.

    attach(model, cpu_ops(threads=8))   # fast on a CPU
    compile(model)                      # fast in evaluation only, on any of MegEngine's devices
    detach(model)                       # MegEngine's own again

Parameters, their names and ``state_dict`` stay what they are.
"""

import contextlib
import logging
import os
from typing import Any, Callable, Optional

import megengine.module as M
import numpy as np
from megengine import Tensor

from .build import KernelsUnavailable, load_kernels
from .compiled import ELEMENTS, Compiled, Compiler, require_instructions
from .cores import cpu_threads
from .gemm import GemmOps
from .native import NativeOps
from .plain import PlainOps, compute_by
from .process import CPU, count_gpus, use_cpu
from .quantize import Calibration, LayerRanges
from .recorder import CannotCompile

SWITCH = "RESNET_KERNELS"

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
    compute_by(model, ops)
    return model


def detach(model: M.Module) -> M.Module:
    """Undo ``attach``."""
    return attach(model, PlainOps())


class CompiledOps(PlainOps):
    """MegEngine's kernels on any device; networks in evaluation are compiled.

    Images are arrays, and so is what a network makes of them: any thread may have them.
    """

    name = "compiled for inference, MegEngine's kernels"

    def __init__(self, compiler: Compiler):
        self._compiler = compiler

    def compiled(self, network: M.Module) -> Compiled:
        """The plans by which a network is computed."""
        return self._compiler.compiled(network)

    def whole(self, network: M.Module, method: Callable, x: Any) -> Any:
        return self._compiler(network, method, x)

    def read_weights(self, network: M.Module) -> None:
        """Read all weights now, so that other threads need not, which MegEngine refuses."""
        conv = next((m for m in network.modules() if isinstance(m, M.Conv2d)), None)
        forward = getattr(type(network).forward, "__wrapped__", None)
        if conv is not None and forward is not None:
            with contextlib.suppress(CannotCompile):  # which is said when it is called
                self.compiled(network).read_weights(forward, conv.in_channels)

    def normalize(
        self, images: np.ndarray, mean: np.ndarray, std: np.ndarray, whole: bool = False
    ) -> np.ndarray:
        return ((images - mean) / std).transpose(0, 3, 1, 2)


def compiled_ops(
    threads: int,
    precision: str = "fp32",
    calibration: Optional[Calibration] = None,
    any_mode: bool = False,
) -> CompiledOps:
    """Operations by which networks in evaluation are computed as compiled plans.

    Args:
        precision: of maps and weights: ``fp32``, ``bf16`` or ``int8``.
        calibration: for int8, some ``(N, C, H, W)`` float32 images as the network will get them,
            or what ``layer_ranges`` made of such.
        any_mode: whether arrays are computed as in evaluation in training mode, too.

    Raises:
        ValueError: for another word, int8 without images, or a CPU without the instructions.
        KernelsUnavailable: where the kernels cannot be compiled, or RESNET_KERNELS wants others.
    """
    if precision not in ELEMENTS:
        raise ValueError(f"precision {precision!r}: expected one of {', '.join(ELEMENTS)}")
    if precision == "int8" and calibration is None:
        raise ValueError("precision int8 needs images to calibrate with")
    wanted = os.environ.get(SWITCH, "native")
    if wanted != "native":
        raise KernelsUnavailable(f"{SWITCH} is {wanted}")
    if isinstance(calibration, np.ndarray):
        calibration = _rows(calibration)
    kernels = load_kernels(threads)
    require_instructions(kernels, precision)
    return CompiledOps(Compiler(kernels, precision, calibration, any_mode))


def _rows(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)


def layer_ranges(model: M.Module, images: np.ndarray) -> LayerRanges:
    """What int8 is to know of ``model``, in evaluation mode, for it to need no images later.

    Args:
        images: some ``(N, C, H, W)`` float32 ones as the network will get them.

    Raises:
        ValueError: where it cannot be compiled, or without native kernels.
    """
    forward = getattr(type(model).forward, "__wrapped__", type(model).forward)
    try:
        kernels = load_kernels(cpu_threads())
        return Compiled(kernels, model, "int8", _rows(images)).layer_ranges(forward)
    except (KernelsUnavailable, CannotCompile) as reason:
        raise ValueError(f"precision int8: {reason}") from None


def compile(
    model: M.Module,
    precision: str = "fp32",
    calibration: Optional[Calibration] = None,
    threads: Optional[int] = None,
) -> M.Module:
    """Put ``model`` in evaluation mode and let it compute by compiled plans; return it.

    It takes Tensors as before and, from any thread, ``(N, C, H, W)`` float32 arrays, of which it
    makes arrays. Weights may change; afterwards it is to be called first in the thread that
    imported MegEngine. ``detach`` undoes it. Without native kernels, which is said, nothing but
    the mode is changed.

    Args:
        precision, calibration: as ``compiled_ops`` takes them.
        threads: as many as ``cpu_threads()`` says without.

    Raises:
        ValueError: as ``compiled_ops``.
    """
    model.eval()
    try:
        ops = compiled_ops(threads or cpu_threads(), precision, calibration)
    except KernelsUnavailable as reason:
        if precision != "fp32":
            raise ValueError(f"precision {precision} needs the native kernels: {reason}") from None
        logger.warning("no native kernels, so the network is not compiled: %s", reason)
        return model
    attach(model, ops)
    ops.read_weights(model)
    return model


def accelerate(model: M.Module, precision: str = "fp32") -> M.Module:
    """Make a network fast on the CPU, in training and in evaluation; return it.

    It moves the network to the device ``cpu:default``, which from then on is the one that new
    tensors are made on: call it before others are. Where there is a GPU it does nothing.

    Args:
        precision: ``bf16`` rounds maps to bfloat16, where the processor has instructions for it.

    Raises:
        ValueError: when ``precision``, or the environment, asks for kernels that are not there.
    """
    if precision not in ("fp32", "bf16"):
        raise ValueError(f"precision {precision!r}: expected fp32 or bf16")
    if count_gpus():
        return model
    use_cpu()
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._reset(Tensor(tensor.numpy()))
    return attach(model, cpu_ops(cpu_threads(), precision == "bf16"))
