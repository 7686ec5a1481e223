"""The native kernels, for tests that need them."""

import pytest

from official.vision.classification.ops.build import Kernels, KernelsUnavailable, load_kernels


def kernels_or_skip() -> Kernels:
    """With one thread; the first test that wants them may compile them."""
    try:
        return load_kernels(threads=1)
    except KernelsUnavailable as reason:
        if "no C++ compiler" in str(reason):  # all else is an error
            pytest.skip(str(reason))
        raise
