"""What ranks do in the tests; new processes find it by this module's name."""

import json
import logging
import os
import signal
import time
from pathlib import Path

import megengine.functional as F
import numpy as np
from megengine import Tensor
from threadpoolctl import threadpool_info

from official.vision.classification.distributed import collectives
from official.vision.classification.distributed.collectives import barrier, rank, world_size
from official.vision.classification.distributed.supervisor import STOP_SIGNALS
from official.vision.classification.engine.device import use_device
from official.vision.classification.errors import DataError

NASTY = "\033[2J\0.png"  # clears a terminal, and is not allowed in XML


def tell(folder, **values):
    """Leave an answer where the test finds it."""
    (Path(folder) / f"{rank()}.json").write_text(json.dumps(values))


def greet(folder, code=0):
    use_device("cpu")
    logging.getLogger(__name__).warning("greetings from %s", NASTY)
    barrier()
    tell(
        folder,
        rank=rank(),
        size=world_size(),
        cores=sorted(os.sched_getaffinity(0)),
        omp_threads=os.environ.get("OMP_NUM_THREADS"),
        pid=os.getpid(),
        device=str(Tensor([1.0]).device),
        blas_threads=max(p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"),
    )
    barrier()
    return code if rank() == 1 else 0


def fail(folder, how):
    """Rank 1 fails in one of several ways while the others are in a collective."""
    use_device("cpu")
    barrier()
    tell(folder, pid=os.getpid(), time=time.time())
    barrier()
    if rank() == 1:
        _FAIL[how]()
        return 0
    barrier()
    time.sleep(100)
    return 0


def _raise(error):
    raise error


_FAIL = {
    "user error": lambda: _raise(DataError("one.png: the file is empty")),
    "nasty name": lambda: _raise(DataError(f"{NASTY}: the file is empty")),
    "nasty bug": lambda: _raise(RuntimeError(f"no {NASTY}\nbacktrace:\n\033[2J (+0x1)")),
    "memory": lambda: F.zeros((1 << 22, 1 << 22)).mean().numpy(),
    "bug": lambda: _raise(ZeroDivisionError("by nothing")),
    "disk": lambda: _raise(OSError(28, "No space left on device", "/data/models/x")),
    "exit": lambda: _raise(SystemExit(0)),
    "vanish": lambda: os._exit(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleep": lambda: time.sleep(100),
    "return": lambda: None,
    "other call": lambda: collectives.sum_over_ranks(np.zeros(7, np.float32)),
}


def wait(folder):
    """Go on until somebody ends it."""
    use_device("cpu")
    barrier()
    tell(folder, pid=os.getpid())
    while True:
        barrier()
        time.sleep(0.01)


def linger(folder):
    """Have nothing to do with other ranks for long, so that no connection tells of their end."""
    use_device("cpu")
    barrier()
    tell(folder, pid=os.getpid())
    time.sleep(100)


def obey(folder, seconds):
    """Note a signal and return a little later, as a training run does."""
    use_device("cpu")
    came = []
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: came.append(number))
    barrier()
    tell(folder, pid=os.getpid())
    while not came:
        time.sleep(0.01)
    time.sleep(seconds)
    tell(folder, pid=os.getpid(), came=came)
    return 128 + came[0]
