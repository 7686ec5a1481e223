import tempfile
import time

import pytest

from official.vision.classification.distributed import heartbeat
from official.vision.classification.distributed.heartbeat import (
    Heartbeats,
    waiting,
    with_heartbeats,
)


@pytest.fixture()
def table():
    with tempfile.TemporaryFile() as file:
        file.truncate(Heartbeats.size(3))
        table = Heartbeats(file.fileno(), 3)
        for index in range(3):
            table.beat(index)
        yield table


@pytest.fixture()
def clock(monkeypatch):
    now = [time.monotonic()]
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: now[0])
    return now


def test_whoever_is_silent_has_stalled(clock, table):
    assert table.stalled(range(3), 10) is None
    clock[0] += 9
    table.beat(0)
    table.beat(2)
    assert table.stalled(range(3), 10) is None
    clock[0] += 2
    assert table.stalled(range(3), 10) == 1
    assert table.stalled([0, 2], 10) is None  # rank 1 has done its work


def test_those_that_wait_are_not_to_blame_before_those_they_wait_for(clock, table):
    table.beat(1)
    table.set_waiting(0, True)
    table.set_waiting(2, True)
    clock[0] += 100
    assert table.stalled(range(3), 10) == 1
    table.set_waiting(1, True)  # all of them: the one that is furthest behind
    table.beat(0)
    clock[0] += 100
    assert table.stalled(range(3), 10) == 2


def test_waiting_for_another_node_is_given_a_little_longer(clock, table):
    for index in range(3):
        table.set_waiting(index, True)
    clock[0] += 11
    assert table.stalled(range(3), 10) is None
    clock[0] += 3
    assert table.stalled(range(3), 10) == 0


def test_a_rank_beats_for_itself(clock, table, monkeypatch):
    assert list(with_heartbeats("ab")) == ["a", "b"]  # nothing to beat on here
    with waiting():
        pass
    monkeypatch.setattr(heartbeat._Own, "table", table)
    monkeypatch.setattr(heartbeat._Own, "index", 1)
    clock[0] += 20
    for _ in with_heartbeats([1]):
        assert table.stalled([1], 10) is None
    clock[0] += 20
    with pytest.raises(ValueError), waiting():
        assert table.stalled([1], 10) is None
        assert table.is_waiting(1) and not table.is_waiting(0)
        raise ValueError
    assert not table.is_waiting(1)
