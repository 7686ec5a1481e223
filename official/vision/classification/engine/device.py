"""Where the network runs."""

import ctypes

import megengine
from megengine.core._imperative_rt.common import CompNode

from ..errors import UsageError
from ..ops.conv import accelerate

# MegEngine 1.13's queued CPU devices (xpux, cpu0) return garbage from some reductions now and
# then; on this one kernels run where they are called.
CPU = "cpu:default"


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


def prepare(model: megengine.module.Module, device: str) -> megengine.module.Module:
    """Give a network the fastest kernels there are for ``device``."""
    return accelerate(model) if device == "cpu" else model
