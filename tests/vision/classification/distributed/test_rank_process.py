"""What a launcher reads from a rank's reports, without processes."""

import json
import os
from types import SimpleNamespace

import pytest

from official.vision.classification.distributed.rank_process import RankProcess


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
    found = failure_of(**{"is": "lost"}, message=f"rank 2 {NASTY}")
    assert (found.text, found.is_cause) == (f"rank 3: rank 2 {SHOWN}", False)
