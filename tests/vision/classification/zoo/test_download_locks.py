"""Several processes that want the same weights: one downloads, the others wait."""

import dataclasses
import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from official.vision.classification.zoo import get_model
from tests.servers import whole

ROOT = Path(__file__).resolve().parents[4]
URL = "/models/weights/resnet20_cifar_test_91250_5a5a5a5a.pkl"


def test_a_file_system_that_locks_only_what_is_open_for_writing(
    mirror, row, random_state, pkl, same, monkeypatch
):
    flock = fcntl.flock

    def nfs_flock(file, operation):
        number = file if isinstance(file, int) else file.fileno()
        if operation & fcntl.LOCK_EX and not fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", nfs_flock)
    mirror.offer(row, pkl(random_state))
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)


def test_the_lock_is_on_the_file_that_is_written(
    mirror, row, cached, random_state, pkl, same, monkeypatch
):
    """Whoever waited for a lock may get that of a file which the one before has removed."""
    part = cached.with_name(cached.name + ".part")
    flock = fcntl.flock
    removed, found = [], []

    def flock_what_is_then_removed(file, operation):
        flock(file, operation)
        if not removed:
            removed.append(part)
            part.unlink()

    def answer(handler):
        with part.open("ab") as other:
            try:
                flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append("locked")
        whole(pkl(random_state))(handler)

    monkeypatch.setattr(fcntl, "flock", flock_what_is_then_removed)
    mirror.offer(row, answer)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)
    assert found == ["locked"]


FETCH = """
import sys
from official.vision.classification.preprocess import PRESETS
from official.vision.classification.zoo import rows, get_model
row = rows.Row(**{values!r}, preprocess=PRESETS["megengine"])
rows.ROWS = (row,)
rows.BY_NAME[row.name] = row
print("ready", flush=True)
sys.stdin.readline()
state = get_model("resnet20_cifar", pretrained=True).state_dict()
print(sum(float(value.sum(dtype="f8")) for value in state.values()))
"""


def test_two_processes_at_once_download_once(mirror, row, cached, random_state, pkl):
    data = pkl(random_state)
    go_on = threading.Event()

    def answer(handler):
        go_on.wait(1.5)  # long enough for the other to come
        whole(data)(handler)

    mirror.offer(row, answer)
    values = dataclasses.asdict(row)
    del values["preprocess"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH.format(values=values)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [process.communicate(timeout=60) for process in processes]
    finally:
        go_on.set()
        for process in processes:
            process.kill()
            process.wait()
    total = sum(float(value.sum(dtype="f8")) for value in random_state.values())
    assert [process.returncode for process in processes] == [0, 0], ends
    assert [float(out) for out, _ in ends] == pytest.approx([total, total])
    assert sorted("origin" in error for _, error in ends) == [False, True]
    assert mirror.requests == [URL]
    assert mirror.cached == [cached.name, cached.name + ".sha256"]
