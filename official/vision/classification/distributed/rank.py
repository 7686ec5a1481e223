"""One rank's process: it joins the group, does its work, and tells the launcher how that went."""

import contextlib
import ctypes
import functools
import json
import logging
import os
import pickle
import signal
import sys
import traceback
import warnings
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Callable, List, NoReturn, Tuple

import megengine.distributed as dist
from megengine.distributed import server
from megengine.distributed.group import _set_machine_ranks
from megengine.logger import set_mgb_log_level

from ..data.image import read_image
from ..errors import UserError
from ..log import log_to_stderr
from ..ops.process import explained_memory
from . import collectives, heartbeat
from .heartbeat import Heartbeats
from .ring import PeerLost
from .secret import SigningTransport

_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


@dataclass(frozen=True)
class Assignment:
    """What a rank's process needs to know; pickled to its stdin.

    Args:
        worker, args: its work.
        rank, index: its number among all, and on this node.
        world_size: all ranks of all nodes.
        neighbours: the ranks of this node.
        address, port: of the server where they meet.
        secret: with which requests to it are signed.
        device_type: "gpu" or "cpu".
        heartbeats: descriptor of the table of this node's signs of life.
        launcher: its process id.
        argv: the launcher's.
    """

    worker: Callable[..., int]
    args: Tuple[Any, ...]
    rank: int
    index: int
    world_size: int
    neighbours: List[int]
    address: str
    port: int
    secret: str
    device_type: str
    heartbeats: int
    launcher: int
    argv: List[str]


def main(report_descriptor: int) -> None:
    """Do what stdin says; report over the pipe, one JSON object per line.

    ``{"is": "ready"}`` comes before the work, and after it one of done (with the exit code),
    interrupted, output_closed (nobody reads stdout), peer_lost (another rank has ended), failed.
    """
    report = os.fdopen(report_descriptor, "wb", buffering=0)
    try:
        assignment = pickle.load(sys.stdin.buffer)
        _end_with(assignment.launcher)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        _set_up_process(assignment)
        _join_group(assignment)
        _tell(report, "ready")
        with explained_memory():
            code = assignment.worker(*assignment.args)
    except KeyboardInterrupt:
        _end(report, 130, "interrupted")
    except BrokenPipeError:
        _end(report, 141, "output_closed")
    except PeerLost as error:
        _end(report, 1, "peer_lost", message=str(error))
    except BaseException as error:  # sys.exit too: the others wait for this rank
        _end(report, 1, "failed", **_describe(error))
    sys.stdout.flush()
    _tell(report, "done", code=int(code or 0))


def _set_up_process(assignment: Assignment) -> None:
    """What the launcher's process has from the command line."""
    sys.argv = assignment.argv
    prog = Path(assignment.argv[0]).name
    # Ranks notice the same things; it is enough if the first one says so.
    level = logging.WARNING if assignment.rank == 0 else logging.CRITICAL
    log_to_stderr(prog, level)
    # But each has images of its own: what is wrong with them, every rank says.
    logging.getLogger(read_image.__module__).setLevel(logging.WARNING)
    if assignment.device_type == "cpu":  # of callbacks for gradients it warns in vain
        set_mgb_log_level(logging.ERROR)
    warnings.filterwarnings("ignore", message="The value of the smallest subnormal")
    heartbeat.attach(
        Heartbeats(assignment.heartbeats, len(assignment.neighbours)), assignment.index
    )


def _take_cores(index: int, processes: int) -> None:
    """Keep this process to its share of the node's cores, if there is one for each.

    Left to themselves, two ranks may meet on one core, and all wait for them. Libraries learn by
    ``OMP_NUM_THREADS`` how many threads that means.
    """
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // processes
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))
    if share:
        for thread in os.listdir("/proc/self/task"):  # those that imports have started, too
            os.sched_setaffinity(int(thread), cores[index * share : (index + 1) * share])


def _join_group(assignment: Assignment) -> None:
    if assignment.device_type == "cpu":
        _take_cores(assignment.index, len(assignment.neighbours))
        collectives.enable_cpu()
    # What MegEngine's client calls with an address and no more.
    server.ServerProxy = functools.partial(
        xmlrpc.client.ServerProxy, transport=SigningTransport(assignment.secret)
    )
    os.environ["NCCL_LAUNCH_MODE"] = "PARALLEL"  # as MegEngine's launcher does, against deadlocks
    dist.init_process_group(
        master_ip=assignment.address,
        port=assignment.port,
        world_size=assignment.world_size,
        rank=assignment.rank,
        device=assignment.index,
        backend="auto" if assignment.device_type == "cpu" else "nccl",
        device_type=assignment.device_type,
    )
    _set_machine_ranks(assignment.neighbours)


def _end_with(launcher: int) -> None:
    """Have the kernel kill this process when the launcher's ends, however it ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it has ended before
        os._exit(1)


def _describe(error: BaseException) -> dict:
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, OSError) and error.filename:  # a full disk, a folder that has gone
        message = f"{error.filename}: {error.strerror}"
    else:
        message = ""
    # The message of one from MegEngine goes on for many lines, with addresses in its libraries.
    summary = traceback.format_exception_only(type(error), error)[-1].split("\n")[0]
    return {
        "error": type(error).__name__,
        "message": message,
        "summary": summary,
        "traceback": "".join(traceback.format_exception(type(error), error, error.__traceback__)),
    }


def _tell(report: BinaryIO, what: str, **details: Any) -> None:
    report.write(json.dumps({"is": what, **details}).encode() + b"\n")


def _end(report: BinaryIO, code: int, what: str, **details: Any) -> NoReturn:
    """End at once, without waiting for threads or devices that wait for other ranks."""
    _tell(report, what, **details)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it
            stream.flush()
    os._exit(code)
