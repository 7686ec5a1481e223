"""The kernels as processors without AVX-512 get them: compiled for AVX2, in an own process."""

import os
import subprocess
import sys

PROGRAM = """
import numpy as np
from megengine import Tensor
from official.vision.classification.engine.device import use_device

use_device("cpu")
from official.vision.classification.ops.accelerate import compile, compiled_ops
from official.vision.classification.resnet import ARCHS
from tests.vision.classification.ops.test_compiled import CONVOLUTIONS, network_of
from tests.vision.classification.ops.values import error, normal
from tests.vision.classification.resnet.reference import randomise_statistics

for case in CONVOLUTIONS:
    network = network_of(case)
    x = normal(2, case[0], *case[-2:])
    expected = network(Tensor(x)).numpy()
    assert error(compile(network)(x), expected) < 1e-5, case
network = randomise_statistics(ARCHS["resnet18"]())
network.eval()
x = normal(2, 3, 64, 64)
expected = network(Tensor(x)).numpy()
assert error(compile(network)(x), expected) < 1e-5
x[1, 0, 3, 3] = np.nan
assert np.isnan(network(x)[1]).all() and np.isfinite(network(x)[0]).all()
for precision in ("bf16", "int8"):
    try:
        compiled_ops(1, precision, x)
    except ValueError as reason:
        assert "instructions" in str(reason)
    else:
        raise AssertionError(precision)
print("same")
"""


def test_networks_are_the_same(kernels):
    """Bytes and bfloat16 are refused, whose instructions AVX2 has not."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "CXXFLAGS": "-march=haswell -O1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["same"]
