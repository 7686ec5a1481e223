"""What a process must be like for the kernels on a CPU."""

import contextlib
import ctypes
from typing import Iterator, Optional

import megengine
from megengine.core._imperative_rt.common import CompNode

from ..errors import UserError

CPU = "cpu:default"

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # from glibc's malloc.h
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30  # from Linux's prctl.h
_SLACK = 2_000_000  # nanoseconds


def count_gpus() -> int:
    """GPUs that MegEngine can use here."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0  # without asking MegEngine, which would print a banner
    return megengine.get_device_count("gpu")


def use_cpu() -> None:
    """Make the CPU's device on which kernels run where they are called that of every new tensor."""
    CompNode._set_default_device(CPU)
    _keep_freed_memory()
    _set_timer_slack(_SLACK)  # of MegEngine's polling thread: see calm_polling


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


@contextlib.contextmanager
def calm_polling() -> Iterator[None]:
    """Let MegEngine's thread that asks for finished events every 10 us do so every 2 ms.

    It would take a sixth to a quarter of a core from the kernels. What it frees are tensors on
    other devices and the host's copies of data, of which there are few on a machine without a GPU;
    where there is one, nothing is changed. Threads inherit the slack that Linux may give their
    timers from the one that starts them, and that one starts with the first tensor.
    """
    libc = ctypes.CDLL(None)
    if count_gpus() or not hasattr(libc, "prctl"):
        yield
        return
    before = libc.prctl(_PR_GET_TIMERSLACK, 0, 0, 0, 0)
    _set_timer_slack(_SLACK)
    try:
        yield
    finally:
        _set_timer_slack(before)


def _set_timer_slack(nanoseconds: int) -> None:
    """Of this thread, and of those that it will start."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(nanoseconds), 0, 0, 0)


@contextlib.contextmanager
def explained_memory() -> Iterator[None]:
    """Say it in one line where MegEngine had no room for a tensor, on a CPU or a GPU.

    It computes meanwhile and tells later, when a value is asked for, with a trace of its library;
    and again when the process ends, if more has failed by then.

    Raises:
        UserError: in place of MegEngine's error.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        for _ in range(100):
            with contextlib.suppress(RuntimeError):
                megengine._full_sync()
                break
        raise UserError(
            "there is not enough memory; use a smaller --batch-size, or give the process more"
        ) from error


def _is_out_of_memory(error: Optional[BaseException]) -> bool:
    while error:
        if any(sign in str(error) for sign in ("failed to malloc", "bad_alloc", "out of memory")):
            return True
        error = error.__cause__ or error.__context__
    return False
