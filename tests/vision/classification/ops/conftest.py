import pytest

from official.vision.classification.ops.build import KernelsUnavailable, load_kernels
from official.vision.classification.ops.native import NativeOps


@pytest.fixture(scope="session")
def kernels():
    """The native kernels; the first test that wants them may compile them."""
    try:
        return load_kernels(1)
    except KernelsUnavailable as reason:
        if "no C++ compiler" in str(reason):  # all else is an error
            pytest.skip(str(reason))
        raise


@pytest.fixture(scope="session")
def native(kernels):
    return NativeOps(kernels)
