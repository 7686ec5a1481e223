"""Where the network runs."""

import ctypes
import logging
import os

import megengine
from megengine.core._imperative_rt.common import CompNode
from threadpoolctl import threadpool_limits

from ..distributed.collectives import local_size
from ..errors import UsageError
from ..ops.conv import accelerate

# MegEngine 1.13's queued CPU devices (xpux, cpu0) return garbage from some reductions now and
# then; on this one kernels run where they are called.
CPU = "cpu:default"

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


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
    """Make ``device`` the place of every new tensor in this process."""
    if device == "cpu":
        CompNode._set_default_device(CPU)
        _keep_freed_memory()
        threadpool_limits(blas_threads(local_size()), user_api="blas")


def blas_threads(processes: int) -> int:
    """Threads for numpy's matrix products in each of ``processes`` that share the cores.

    One core of a process's share is left to MegEngine, which works beside them (ops/conv.py).
    """
    return max(1, len(os.sched_getaffinity(0)) // processes - 1)


def _keep_freed_memory() -> None:
    """Let glibc's malloc reuse large blocks instead of handing them back to the kernel.

    The activations of every step would otherwise be made of fresh pages, which cost up to a fifth
    of a training step of a small network.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most it allows
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def prepare(model: megengine.module.Module, device: str) -> megengine.module.Module:
    """Give a network the fastest kernels there are for ``device``."""
    return accelerate(model) if device == "cpu" else model
