"""The launcher for real: new processes on the CPU, which meet, fail, stall and are interrupted."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import megengine
import pytest

from official.vision.classification.distributed.collectives import (
    barrier,
    rank,
    sum_over_ranks,
    world_size,
)
from official.vision.classification.distributed.launch import Topology, launch
from official.vision.classification.errors import DataError, TrainingError, UsageError, UserError

from . import workers

ROOT = Path(__file__).resolve().parents[4]
TWO = Topology(ngpus=2)


def answers(folder):
    """What the ranks have left."""
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]


def is_alive(pid):
    """Whether there is such a process that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def assert_gone(folder, count=2, seconds=0.0):
    pids = [answer["pid"] for answer in answers(folder)]
    assert len(pids) == count
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))


def wait_for(folder, count, process):
    deadline = time.monotonic() + 60
    while len(list(Path(folder).glob("*.json"))) < count and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(0.1)


def test_a_single_process_needs_no_launcher():
    here = os.getpid()
    seen = []
    code = launch(lambda *args: seen.append((os.getpid(), args)) or 7, Topology(), "a", 2)
    assert (code, seen) == (7, [(here, ("a", 2))])
    assert (rank(), world_size()) == (0, 1)
    barrier()
    values = [1, 2]
    assert sum_over_ranks(values) is values


def test_only_a_users_error_is_kept_short():
    with pytest.raises(UserError):
        launch(raise_it, Topology(), UserError("short"))
    with pytest.raises(ZeroDivisionError):
        launch(raise_it, Topology(), ZeroDivisionError())


def raise_it(error):
    raise error


def test_every_rank_runs_and_the_worst_exit_code_counts(tmp_path, capfd, monkeypatch):
    """In a process that has made tensors, which those that fork cannot do."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    megengine.Tensor([1.0]).numpy()
    assert launch(workers.greet, TWO, tmp_path, 3, device_type="cpu") == 3
    found = answers(tmp_path)
    assert [(a["rank"], a["size"]) for a in found] == [(0, 2), (1, 2)]
    assert {a["device"] for a in found} == {"cpu:default"}  # where reductions are right
    assert len({a["pid"] for a in found} | {os.getpid()}) == 3
    cores = len(os.sched_getaffinity(0))
    assert all(a["blas_threads"] <= max(1, cores // 2) for a in found)
    if cores > 1:  # each has its own
        assert all(len(a["cores"]) == cores // 2 for a in found)
        assert not set(found[0]["cores"]) & set(found[1]["cores"])
    assert {a["omp_threads"] for a in found} == {str(max(1, cores // 2))}
    assert_gone(tmp_path)
    said = [line for line in capfd.readouterr().err.splitlines() if "greetings" in line]
    assert len(said) == 1 and said[0].endswith(r": greetings from \x1b[2J\x00.png")


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("user error", DataError, "rank 1: one.png: the file is empty"),
        ("nasty name", DataError, r"rank 1: \\x1b\[2J\\x00.png: the file is empty"),
        ("memory", UserError, "rank 1: there is not enough memory; use a smaller --batch-size"),
        ("bug", UserError, "rank 1 has failed: ZeroDivisionError: by nothing; the others"),
        ("nasty bug", UserError, r"failed: RuntimeError: no \\x1b\[2J\\x00.png; the others"),
        ("disk", UserError, "rank 1: /data/models/x: No space left on device"),
        ("exit", UserError, "rank 1 has failed: SystemExit: 0"),
        ("vanish", UserError, "rank 1 ended with exit code 0 before its work was done"),
        ("kill", UserError, "rank 1 was ended by SIGKILL"),
        ("segfault", UserError, "rank 1 was ended by SIGSEGV"),
        ("return", UserError, "rank 0: rank 1 is gone; rank 1 had done its work before"),
        (
            "other call",
            TrainingError,
            r"rank . is at all-reduce .*, call 3, but rank . at .*, call 3$",
        ),
        ("stop", UserError, "rank 1 .* 2 s: it has stalled, stopped by a signal such as SIGSTOP"),
        ("sleep", UserError, "rank 1 has shown no progress for 2 s: it has stalled"),
    ],
)
def test_the_rank_that_fails_is_named_and_the_others_end(tmp_path, capfd, how, error, message):
    topology = replace(TWO, timeout=2 if how in ("stop", "sleep") else 60)
    with pytest.raises(error, match=message) as caught:
        launch(workers.fail, topology, tmp_path, how, device_type="cpu")
    failed = answers(tmp_path)[1]["time"]
    assert time.time() - failed < 10
    assert type(caught.value) is error
    assert_gone(tmp_path)
    told = capfd.readouterr().err
    assert "\033" not in told + str(caught.value) + str(caught.value.__cause__)
    if "bug" in how:
        assert told.count("Traceback") == 1 and "in fail\n" in told
    elif how != "exit":
        assert "Traceback" not in told
    if error is DataError:
        assert "in fail\n" in str(caught.value.__cause__)  # for --debug


@pytest.fixture()
def start():
    """Starts a launcher in a process of its own; whatever is left of it at the end is killed."""
    started = []

    def start(worker, topology, *args):
        program = (
            "import sys\n"
            "from official.vision.classification.distributed.launch import launch, Topology\n"
            "from official.vision.classification.errors import UserError\n"
            "from tests.vision.classification.distributed import workers\n"
            "try:\n"
            f"    sys.exit(launch(workers.{worker}, {topology}, *{args!r}, device_type='cpu'))\n"
            "except UserError as error:\n"
            "    sys.exit(f'error: {error}')\n"
            "except KeyboardInterrupt:\n"
            "    sys.exit(130)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", program],
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
        process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_group_ends_everything_once_and_quietly(start, tmp_path, number, code):
    """As a terminal's Ctrl-C: to every process of the launcher's group."""
    process = start("wait", TWO, str(tmp_path))
    wait_for(tmp_path, 2, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (code, "")
    assert "Traceback" not in err and "error" not in err
    assert_gone(tmp_path)


def test_ctrl_c_lets_the_ranks_finish_and_comes_to_each_once(start, tmp_path):
    process = start("obey", TWO, str(tmp_path), 0.5)
    wait_for(tmp_path, 2, process)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 130
    assert [answer["came"] for answer in answers(tmp_path)] == [[signal.SIGINT]] * 2


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_that_comes_twice_lets_the_ranks_finish_too(start, tmp_path, number):
    process = start("obey", TWO, str(tmp_path), 0.5)
    wait_for(tmp_path, 2, process)
    os.kill(process.pid, number)
    time.sleep(0.2)
    os.kill(process.pid, number)
    process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert [answer["came"] for answer in answers(tmp_path)] == [[number]] * 2


def test_a_second_ctrl_c_ends_what_does_not_want_to_end(start, tmp_path):
    process = start("obey", TWO, str(tmp_path), 60)
    wait_for(tmp_path, 2, process)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    assert process.returncode == 130
    assert_gone(tmp_path)


def test_ctrl_c_before_the_ranks_are_there(start, tmp_path):
    process = start("greet", TWO, str(tmp_path))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_ranks_do_not_outlive_their_launcher(start, tmp_path):
    process = start("wait", TWO, str(tmp_path))
    wait_for(tmp_path, 2, process)
    process.kill()
    process.wait()
    assert_gone(tmp_path, seconds=5)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Where the secret of nodes is kept."""
    monkeypatch.setenv("MGE_HOME", str(tmp_path_factory.mktemp("home")))


def nodes(port, ngpus=1, timeout=60):
    return [Topology(ngpus, nodes=2, node=node, port=port, timeout=timeout) for node in (0, 1)]


def test_two_launchers_act_as_two_nodes_and_again_on_the_same_port(start, tmp_path, port):
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        both = [start("greet", node, str(folder), 3) for node in nodes(port, ngpus=2)]
        told = [node.communicate(timeout=60) for node in both]
        # Each node answers for its own ranks: the code is rank 1's, which is on node 0.
        assert [node.returncode for node in both] == [3, 0], told
        assert [a["rank"] for a in answers(folder)] == [0, 1, 2, 3]
        assert [a["size"] for a in answers(folder)] == [4] * 4


@pytest.mark.parametrize("how", ["user error", "nasty name", "sleep"])
def test_a_failure_on_one_node_ends_the_other(start, tmp_path, port, how):
    limit = 2 if how == "sleep" else 60
    both = [start("fail", node, str(tmp_path), how) for node in nodes(port, timeout=limit)]
    told = [node.communicate(timeout=60)[1] for node in both]
    cause = {
        "user error": "rank 1: one.png: the file is empty",
        "nasty name": r"rank 1: \x1b[2J\x00.png: the file is empty",
        "sleep": "rank 1 has shown no",
    }
    assert [node.returncode for node in both] == [1, 1]
    assert f"error: node 1: {cause[how]}" in told[0]
    assert f"error: {cause[how]}" in told[1]
    assert time.time() - answers(tmp_path)[1]["time"] < 10
    assert_gone(tmp_path)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_node_that_is_gone_ends_the_other(start, tmp_path, port, lost):
    both = [start("linger", node, str(tmp_path)) for node in nodes(port)]
    wait_for(tmp_path, 2, both[1 - lost])
    both[lost].kill()
    killed = time.monotonic()
    _, err = both[1 - lost].communicate(timeout=20)
    assert time.monotonic() - killed < 10
    assert both[1 - lost].returncode == 1
    assert f"node {lost} does not answer any more" in err
    assert_gone(tmp_path, seconds=2)


def test_nodes_that_do_not_fit_together(start, tmp_path, port):
    first = start("greet", nodes(port)[0], str(tmp_path))
    with pytest.raises(UsageError, match="--ngpus 2: node 0 was started with --world-size 2"):
        launch(workers.greet, nodes(port, ngpus=2)[1], tmp_path, device_type="cpu")
    with pytest.raises(UsageError, match=f"--dist-port {port}: cannot be used .* in use"):
        launch(workers.greet, nodes(port)[0], tmp_path, device_type="cpu")
    first.kill()
    first.wait()
    with pytest.raises(UserError, match="node 0 does not answer .Connection refused."):
        launch(workers.greet, nodes(port, timeout=1)[1], tmp_path, device_type="cpu")


def test_the_launcher_leaves_no_thread_and_no_open_file(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    threads = threading.active_count()
    with pytest.raises(DataError):
        launch(workers.fail, TWO, tmp_path, "user error", device_type="cpu")
    time.sleep(0.3)
    assert threading.active_count() <= threads
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0
