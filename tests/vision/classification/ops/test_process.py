"""What a program of somebody's own becomes for the kernels: as little as possible."""

import subprocess
import sys
from pathlib import Path

import pytest

from official.vision.classification.ops.process import count_gpus

# A child inherits the slack of the tests' own process, so that this one begins with another.
PROGRAM = """
import ctypes
from pathlib import Path
ctypes.CDLL(None).prctl(29, ctypes.c_ulong(51_000), 0, 0, 0)
from official.vision.classification import get_model

get_model("resnet20_cifar")
slack = {}
for task in Path("/proc/self/task").iterdir():
    slack.setdefault((task / "comm").read_text().strip(), []).append(
        int((Path("/proc") / task.name / "timerslack_ns").read_text())
    )
own = int(Path("/proc/thread-self").resolve().name)
print(slack["CompNodeSync"], Path(f"/proc/{own}/timerslack_ns").read_text().strip())
"""


@pytest.mark.skipif(count_gpus() > 0, reason="with a GPU MegEngine's thread has more to do")
@pytest.mark.skipif(not Path("/proc/self/timerslack_ns").exists(), reason="Linux's alone")
def test_megengine_polls_seldom_and_the_program_keeps_its_own_timers():
    """Its polling took a sixth of a core from inference at batch 1."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[2000000] 51000"
