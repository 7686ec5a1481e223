"""What a launcher makes of what it sees, without processes."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import pytest

from official.vision.classification.distributed import rendezvous as meeting
from official.vision.classification.distributed import supervisor
from official.vision.classification.distributed.heartbeat import Heartbeats
from official.vision.classification.distributed.rendezvous import Topology
from official.vision.classification.distributed.supervisor import RankProcess, Supervisor


@pytest.fixture()
def clock(monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture()
def news():
    """What the other nodes have told, and what they were told."""
    return SimpleNamespace(told="", heard=[])


@pytest.fixture()
def build(news):
    def build(*ranks, nodes=1):
        meeting = SimpleNamespace(exchange=lambda text, done: news.heard.append(text) or news.told)
        with tempfile.TemporaryFile() as file:
            file.truncate(Heartbeats.size(len(ranks)))
            table = Heartbeats(file.fileno(), len(ranks))
        for index in range(len(ranks)):
            table.beat(index)
        found = Supervisor(None, Topology(len(ranks), nodes), table, meeting)
        for number, (final, code) in enumerate(ranks):
            process = SimpleNamespace(wait=lambda code=code: code)
            rank = RankProcess(number, number, process, -1, b"")
            rank.final, rank.has_ended, rank.is_ready = final, code is not None, True
            found.ranks.append(rank)
        return found

    return build


LOST = {"is": "peer_lost", "message": "rank 1 is gone"}
DONE = {"is": "done", "code": 0}
FAILED = {"is": "failed", "message": "no disk", "error": "DataError", "traceback": "…"}


def test_a_cause_comes_before_what_follows_from_it(clock, build):
    """The neighbour of a rank that is killed may be heard first."""
    assert build((LOST, None), (None, -9))._find_failure().text.startswith("rank 1 was ended by")
    assert build((LOST, None), (FAILED, None))._find_failure().text == "rank 1: no disk"


def test_what_follows_from_nothing_is_told_after_a_while(clock, build):
    waiting = build((LOST, 1), (None, None))
    assert waiting._find_failure() is None
    clock[0] += supervisor._GRACE + 0.1
    assert waiting._find_failure().text == "rank 0: rank 1 is gone"


def test_the_cause_on_another_node_comes_before_what_follows_here(clock, build, news):
    here = build((LOST, 1), nodes=2)
    assert here._find_failure() is None and not here._are_finished()
    news.told = "node 1: rank 1: no disk"  # to whoever calls once, for the others may end then
    clock[0] += meeting.CALL_EVERY + 0.1
    assert here._find_failure().text == "node 1: rank 1: no disk"
    late = build((LOST, 1), nodes=2)
    assert late._find_failure() is None
    clock[0] += supervisor._GRACE + 0.1
    assert late._find_failure().text == "node 1: rank 1: no disk"
    assert build((FAILED, None), nodes=2)._find_failure().text == "rank 0: no disk"
    assert news.heard[-1] == "node 0: rank 0: no disk"


def test_a_node_that_is_done_still_calls_and_needs_no_others(clock, build, news):
    """Its processes may take a while to end, and a node that does not call is given up."""
    here = build((DONE, None), nodes=2)
    news.told = "node 1: rank 1: no disk"
    for _ in range(40):
        assert here._find_failure() is None
        clock[0] += meeting.CALL_EVERY / 10
    assert 3 <= len(news.heard) <= 4 and not any(news.heard)


def test_what_the_user_wished_is_no_failure(build):
    both = build(({"is": "interrupted"}, 130), (LOST, 1))
    both.signal = 2
    assert both._find_failure() is None
    with pytest.raises(KeyboardInterrupt):
        both._outcome(None)


@pytest.fixture()
def failure_of():
    """Sends one report of rank 3 through its pipe; what the launcher makes of it."""
    receiving, reporting = os.pipe()
    rank = RankProcess(3, 1, SimpleNamespace(), receiving, b"")

    def failure_of(**report):
        os.write(reporting, json.dumps(report).encode() + b"\n")
        rank.read()
        return rank.failure()

    yield failure_of
    os.close(receiving)
    os.close(reporting)


NASTY = "\033[2J\0\ud800\u2028\x85é\r"  # a terminal obeys some, and XML cannot hold others
SHOWN = r"\x1b[2J\x00\ud800\u2028\x85é\r"


def test_a_message_is_one_line_that_steers_nothing(failure_of):
    found = failure_of(
        **{"is": "failed"}, error="DataError", message=f"{NASTY}\nx", summary="", traceback=""
    )
    assert (found.text, found.error) == (rf"rank 3: {SHOWN}\nx", "DataError")


def test_a_traceback_keeps_its_lines(failure_of):
    lines = f'Traceback:\n  File "{NASTY}", line 1\nKeyError: {NASTY}\n'
    report = {"is": "failed", "error": "KeyError", "message": "", "traceback": lines}
    found = failure_of(**report, summary=f"KeyError: {NASTY}")
    assert found.traceback == f'Traceback:\n  File "{SHOWN}", line 1\nKeyError: {SHOWN}\n'
    assert (found.text, found.error) == (f"rank 3 has failed: KeyError: {SHOWN}", "")


def test_who_is_lost_is_no_cause(failure_of):
    found = failure_of(**{"is": "peer_lost"}, message=f"rank 2 {NASTY}")
    assert (found.text, found.is_cause) == (f"rank 3: rank 2 {SHOWN}", False)


@pytest.mark.parametrize(
    ("waiting", "nodes", "stopped", "why"),
    [
        ((False, True), 1, (), "rank 0 .*: it has stalled \\("),
        ((False, True), 1, (0,), "rank 0 .*: it has stalled, stopped by a signal such as SIGSTOP"),
        ((True, True), 1, (1,), "rank 1 .*: it has stalled, stopped by a signal such as SIGSTOP"),
        ((True, True), 2, (), "rank 0 .*: waiting for other nodes"),
        ((True, True), 1, (), "rank 0 .*: all ranks of this machine wait for each other"),
    ],
)
def test_why_nothing_goes_on(clock, build, monkeypatch, waiting, nodes, stopped, why):
    """On one machine no other nodes are waited for."""
    found = build((None, None), (None, None), nodes=nodes)
    for rank, one in zip(found.ranks, waiting):
        rank.process.pid = rank.index
        found.table.set_waiting(rank.index, one)
    monkeypatch.setattr(supervisor, "_is_stopped", lambda pid: pid in stopped)
    clock[0] += found.topology.timeout + 10
    (failure,) = found._find_stalled()
    assert re.search(why, failure.text)


def test_a_stopped_process_is_known_by_its_state():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not supervisor._is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        assert supervisor._is_stopped(process.pid)
    finally:
        process.kill()
        process.communicate()
    assert not supervisor._is_stopped(process.pid)
