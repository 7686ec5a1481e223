"""The kernels' threads are the only ones: oneDNN computes by them too, and not by OpenMP's."""

import subprocess
import sys

PROGRAM = """
import os
import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.core._imperative_rt.common import CompNode

CompNode._set_default_device("cpu:default")
from official.vision.classification.ops.build import load_kernels
from official.vision.classification.ops.native import NativeOps

def count():
    return len(os.listdir("/proc/self/task"))

x, conv = Tensor(np.ones((2, 8, 64, 64), np.float32)), M.Conv2d(8, 8, 3, padding=1)
ops = NativeOps(load_kernels(4))
ops.add(x, x).numpy()
before = count()
for _ in range(20):
    ops.conv(conv, x).numpy()
print(count() - before)
"""


def test_one_set_of_threads(kernels):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0"]
