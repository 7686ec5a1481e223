"""Images are normalised to the bit as numpy and MegEngine do it."""

import logging

import numpy as np
import pytest
from megengine.core.tensor.dtype import bfloat16
from megengine.jit import trace

from official.vision.classification.ops.build import load_kernels, processor_flags
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.preprocess import PRESETS, Preprocess

from .test_native_half import rounded

CASES = {**PRESETS, "uneven": Preprocess(mean=(0.0, -3.5, 250.25), std=(0.3, 255.0, 7.0))}
SHAPES = [(1, 1, 1, 3), (5, 17, 31, 3), (2, 16, 48, 3)]
HALF = pytest.mark.skipif(
    "avx512_bf16" not in processor_flags(), reason="this CPU has no bfloat16 instructions"
)


def constants(name):
    return np.float32(CASES[name].mean), np.float32(CASES[name].std)


def noise(shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def every_byte():
    """(1, 16, 16, 3): each in each channel."""
    return np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)


@pytest.mark.parametrize("images", [every_byte(), *map(noise, SHAPES)], ids=lambda x: str(x.shape))
@pytest.mark.parametrize("name", CASES)
def test_to_the_bit(native, name, images):
    mean, std = constants(name)
    expected = ((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    for ops in (PlainOps(), native):
        found = ops.normalize(images, mean, std)
        assert found.dtype == np.float32
        assert np.array_equal(found.numpy(), expected)


@HALF
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_is_float32_rounded(kernels, name):
    half, images, (mean, std) = NativeOps(kernels, half=True), every_byte(), constants(name)
    expected = ((images.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)
    found = half.normalize(images, mean, std)
    assert found.dtype == bfloat16
    assert np.array_equal(found.astype("float32").numpy(), rounded(expected))
    of_megengine = PlainOps().normalize(images, mean, std).astype(bfloat16)
    assert np.array_equal(found.numpy(), of_megengine.numpy())
    whole = half.normalize(images, mean, std, whole=True)
    assert whole.dtype == np.float32 and np.array_equal(whole.numpy(), expected)


def test_several_threads(kernels):
    images, (mean, std) = noise((3, 7, 5, 3)), constants("torchvision")
    expected = PlainOps().normalize(images, mean, std).numpy()
    found = NativeOps(load_kernels(4)).normalize(images, mean, std).numpy()
    load_kernels(kernels.threads)
    assert np.array_equal(found, expected)


def test_a_buffer_that_is_used_again_changes_nothing(native):
    images, (mean, std) = noise((2, 64, 64, 3)), constants("torchvision")
    expected = PlainOps().normalize(images, mean, std).numpy()
    found = native.normalize(images, mean, std)
    images[:] = 0
    assert np.array_equal(found.numpy(), expected)


def test_what_is_no_image_is_refused(native):
    mean, std = constants("torchvision")
    with pytest.raises(ValueError, match="uint8"):
        native.normalize(noise((1, 4, 4, 3)).astype(np.float32), mean, std)
    for channels in (1, 4):
        with pytest.raises(ValueError, match="three channels"):
            native.normalize(noise((1, 4, 4, channels)), mean, std)
    with pytest.raises(ValueError, match="as many means"):
        native.normalize(noise((1, 4, 4, 3)), mean[:2], std)


@pytest.mark.parametrize("symbolic", [False, True], ids=["recorded", "symbolic"])
def test_traced(kernels, caplog, symbolic):
    ops, images, (mean, std) = NativeOps(kernels), noise((2, 8, 8, 3)), constants("torchvision")
    expected = PlainOps().normalize(images, mean, std).numpy()
    traced = trace(symbolic=symbolic)(lambda: ops.normalize(images, mean, std))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert np.array_equal(traced().numpy(), expected)
    assert len(caplog.records) == 1
