"""The launcher for real, on CPU processes: its barriers need no GPU, its collectives do."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from official.vision.classification.distributed.collectives import (
    barrier,
    rank,
    sum_over_ranks,
    world_size,
)
from official.vision.classification.distributed.launch import Topology, launch
from official.vision.classification.errors import UserError

ROOT = Path(__file__).resolve().parents[4]

# A process of its own, for no tensor may exist before the launcher forks.
SETUP = """
import sys
from megengine.distributed import group
group._devices.add("cpu")  # MegEngine allows GPUs only
from official.vision.classification.distributed.collectives import barrier, rank, world_size
from official.vision.classification.distributed.launch import Topology, launch
from official.vision.classification.errors import DataError, UserError

def worker(word):
    barrier()
    print(f"{word} {rank()} of {world_size()}\\n", end="", flush=True)
    barrier()
    return 3 if rank() == 1 else 0

def broken(word):
    barrier()
    if rank() == 1:
        raise DataError("one.png: the file is empty")
    barrier()

def start(function, topology):
    return launch(function, topology, "this is", device_type="cpu")
"""


@pytest.fixture()
def run():
    """Starts a program; whatever is left of it and its ranks at the end is killed."""
    started = []

    def start(program):
        process = subprocess.Popen(
            [sys.executable, "-c", SETUP + program],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_single_process_needs_no_launcher():
    here = os.getpid()
    seen = []
    code = launch(lambda *args: seen.append((os.getpid(), args)) or 7, Topology(), "a", 2)
    assert (code, seen) == (7, [(here, ("a", 2))])
    assert (rank(), world_size()) == (0, 1)
    barrier()
    values = [1, 2]
    assert sum_over_ranks(values) is values


def test_every_rank_runs_and_the_worst_exit_code_counts(run):
    process = run("sys.exit(start(worker, Topology(ngpus=2, port=0)))")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert sorted(out.split("\n")) == ["", "this is 0 of 2", "this is 1 of 2"]


def test_an_error_on_one_rank_is_told_and_ends_the_others(run):
    process = run(
        "try:\n    start(broken, Topology(ngpus=2, port=0))\n"
        "except UserError as error:\n    sys.exit(f'error: {error}')"
    )
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "rank 1: one.png: the file is empty" in err.splitlines()
    assert "error: a process has failed and the others were ended" in err


def test_two_launchers_act_as_two_nodes(run, unused_port):
    nodes = [
        run(f"start(worker, Topology(ngpus=1, nodes=2, node={node}, port={unused_port}))")
        for node in (0, 1)
    ]
    told = [node.communicate(timeout=60) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert [out.strip() for out, _ in told] == ["this is 0 of 2", "this is 1 of 2"]


@pytest.fixture()
def unused_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_only_a_users_error_is_kept_short():
    with pytest.raises(UserError):
        launch(_raise, Topology(), UserError("short"))
    with pytest.raises(ZeroDivisionError):
        launch(_raise, Topology(), ZeroDivisionError())


def _raise(error):
    raise error
