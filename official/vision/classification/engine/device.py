"""Where the network runs."""

import logging
import os
from typing import Optional, get_args

import megengine
from threadpoolctl import threadpool_limits

from ..errors import UsageError
from ..ops.accelerate import attach, compile, cpu_ops
from ..ops.cores import cpu_threads
from ..ops.process import count_gpus, use_cpu
from ..ops.quantize import Calibration
from .schema import InferencePrecision

logger = logging.getLogger(__name__)


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
        use_cpu()
        threadpool_limits(blas_threads(), user_api="blas")


def blas_threads() -> int:
    """Threads for numpy's matrix products.

    One of them is left to MegEngine, which works beside them (ops/gemm.py).
    """
    return max(1, cpu_threads() - 1)


def prepare(
    model: megengine.module.Module,
    device: str,
    precision: InferencePrecision = "fp32",
    calibration: Optional[Calibration] = None,
) -> megengine.module.Module:
    """Give a network the fastest kernels there are for ``device``.

    Args:
        calibration: for int8, some ``(N, 3, H, W)`` float32 images as the network gets them, or
            what such have given. Such a network is for inference alone.

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
