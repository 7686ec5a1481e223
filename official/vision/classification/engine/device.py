"""Where the network runs."""

import ctypes
import os

import megengine
from megengine.core._imperative_rt.common import CompNode
from threadpoolctl import threadpool_limits

from ..errors import UsageError
from ..ops.conv import accelerate

# MegEngine 1.13's queued CPU devices (xpux, cpu0) return garbage from some reductions now and
# then; on this one kernels run where they are called.
CPU = "cpu:default"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h


def count_gpus() -> int:
    """GPUs that MegEngine can use here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0  # without asking MegEngine, which would print a banner
    return megengine.get_device_count("gpu")


def choose_device(wanted: str, ngpus: int) -> str:
    """Settle ``--device auto|gpu|cpu`` to "gpu" or "cpu", before any tensor exists.

    Raises:
        UsageError: when there are not as many devices as asked for.
    """
    gpus = 0 if wanted == "cpu" else count_gpus()
    if wanted == "gpu" and gpus == 0:
        raise UsageError("--device gpu: no GPU that MegEngine can use; --device cpu works anywhere")
    if gpus == 0:
        if ngpus > 1:
            raise UsageError(f"--ngpus {ngpus}: there is no GPU; one process runs on the CPU")
        return "cpu"
    if ngpus > gpus:
        raise UsageError(f"--ngpus {ngpus}: there are {gpus} GPUs")
    return "gpu"


def use_device(device: str) -> None:
    """Make ``device`` the place of every new tensor in this process."""
    if device == "cpu":
        CompNode._set_default_device(CPU)
        _keep_freed_memory()
        # numpy's matrix products leave a core to MegEngine, which works beside them (ops/conv.py).
        cores = len(os.sched_getaffinity(0))
        threadpool_limits(max(1, cores - 1), user_api="blas")


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
