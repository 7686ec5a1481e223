import pytest

from official.vision.classification.ops.native import NativeOps
from tests.kernels import kernels_or_skip


@pytest.fixture(scope="session")
def kernels():
    return kernels_or_skip()


@pytest.fixture(scope="session")
def native(kernels):
    return NativeOps(kernels)
