"""Where the network runs."""

import ctypes
import logging
import os
from typing import Optional, get_args

import megengine
import numpy as np
from megengine.core._imperative_rt.common import CompNode
from threadpoolctl import threadpool_limits

from ..errors import UsageError
from ..ops.accelerate import CPU, attach, compile, cpu_ops
from ..ops.cores import cpu_threads
from .schema import InferencePrecision, Precision

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h
_PR_SET_TIMERSLACK = 29  # from Linux's prctl.h


def count_gpus() -> int:
    """GPUs that MegEngine can use here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0  # without asking MegEngine, which would print a banner
    return megengine.get_device_count("gpu")


def choose_device(wanted: str, ngpus: int) -> str:
    """Settle ``--device auto|gpu|cpu`` to "gpu" or "cpu".

    ``ngpus`` processes on a CPU are only started when the CPU is asked for by name: whoever asks
    for GPUs and has none should hear of it.

    Raises:
        UsageError: when there are not as many devices as asked for.
    """
    gpus = 0 if wanted == "cpu" else count_gpus()
    if wanted == "gpu" and gpus == 0:
        raise UsageError("--device gpu: no GPU that MegEngine can use; --device cpu works anywhere")
    if gpus == 0:
        if ngpus > 1:
            if wanted != "cpu":
                raise UsageError(
                    f"--ngpus {ngpus}: there is no GPU; --device cpu starts {ngpus} processes on "
                    "the CPU"
                )
            _remark_on_cores(ngpus)
        return "cpu"
    if ngpus > gpus:
        raise UsageError(f"--ngpus {ngpus}: there are {gpus} GPUs")
    return "gpu"


def _remark_on_cores(processes: int) -> None:
    cores = len(os.sched_getaffinity(0))
    if processes > cores:
        logger.warning(
            "--ngpus %d: more processes than the %d core(s) here; they take turns", processes, cores
        )


def use_device(device: str) -> None:
    """Make ``device`` the place of every new tensor in this process.

    MegEngine's queued CPU devices (xpux, cpu0) return garbage from some reductions now and then;
    on the CPU that is used here kernels run where they are called.
    """
    if device == "cpu":
        CompNode._set_default_device(CPU)
        _keep_freed_memory()
        _calm_polling_thread()
        threadpool_limits(blas_threads(), user_api="blas")


def blas_threads() -> int:
    """Threads for numpy's matrix products.

    One of them is left to MegEngine, which works beside them (ops/gemm.py).
    """
    return max(1, cpu_threads() - 1)


def _keep_freed_memory() -> None:
    """Let glibc's malloc reuse freed memory, of any size, instead of handing it back to the kernel.

    The activations of every step would otherwise be made of fresh pages: up to a fifth of the time
    of a training step. One arena for all threads, because only the first can grow without bound.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


def _calm_polling_thread() -> None:
    """Let MegEngine's thread that asks for finished events every 10 us do so every 2 ms.

    It would take a quarter of a core from the kernels. What it frees are tensors on other devices
    and the host's copies of data, of which there are few here. Threads inherit the slack that
    Linux may give their timers, and that one starts with the first tensor.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(2_000_000), 0, 0, 0)


def prepare(
    model: megengine.module.Module,
    device: str,
    precision: InferencePrecision = "fp32",
    calibration: Optional[np.ndarray] = None,
) -> megengine.module.Module:
    """Give a network the fastest kernels there are for ``device``.

    Args:
        calibration: for int8, some ``(N, 3, H, W)`` float32 images as the network gets them. Such
            a network is for inference alone.

    Raises:
        UsageError: when ``precision``, or the environment, asks for kernels that are not there.
    """
    if precision not in get_args(InferencePrecision):
        words = ", ".join(get_args(InferencePrecision))
        raise UsageError(f"precision {precision!r}: expected one of {words}")
    if device != "cpu":
        if precision != "fp32":
            raise UsageError(f"precision {precision} is for CPUs; on a GPU, set amp.enabled")
        return model
    try:
        if precision == "int8":
            return compile(model, precision, calibration)
        return attach(model, cpu_ops(cpu_threads(), precision == "bf16"))
    except ValueError as error:
        raise UsageError(str(error)) from None


def accelerate(
    model: megengine.module.Module, precision: Precision = "fp32"
) -> megengine.module.Module:
    """Make a network fast on the CPU, in training and in evaluation; return it.

    It moves the network to the device ``cpu:default``, which from then on is the one that new
    tensors are made on: call it before others are. On a GPU there is nothing to do.

    Args:
        precision: ``bf16`` rounds maps to bfloat16, where the processor has instructions for it.

    Raises:
        UsageError: when ``precision``, or the environment, asks for kernels that are not there.
    """
    device = choose_device("auto", 1)
    use_device(device)
    if device == "cpu":
        for tensor in (*model.parameters(), *model.buffers()):
            tensor._reset(tensor.to(CPU))
    return prepare(model, device, precision)
