"""NaN stays NaN: a network whose weights are broken must not look like a sound one."""

import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine import Tensor

from official.vision.classification.ops.native import NativeOps
from official.vision.classification.resnet.blocks import conv3x3

from .values import differentiate, normal


def nan_pixels(y):
    return {tuple(place) for place in np.argwhere(np.isnan(y).any(1))}


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("channels", [8, 32])  # by oneDNN; in float32 by Winograd's algorithm
@pytest.mark.parametrize("shortcut", [False, True])
def test_after_a_folded_convolution(kernels, half, channels, shortcut):
    try:
        ops = NativeOps(kernels, half)
    except ValueError as reason:
        pytest.skip(str(reason))
    conv, norm = conv3x3(channels, channels), M.BatchNorm2d(channels)
    norm.eval()
    x = normal(2, channels, 12, 12)
    added = Tensor(normal(2, channels, 12, 12, seed=1)) if shortcut else None
    sound = ops.conv_norm(conv, norm, Tensor(x), added, relu=True).astype("float32").numpy()
    assert np.isfinite(sound).all() and (sound == 0).any() and (sound > 0).any()
    x[1, 3, 4, 5] = np.nan
    y = ops.conv_norm(conv, norm, Tensor(x), added, relu=True).astype("float32").numpy()
    found = nan_pixels(y)
    assert found >= {(1, row, column) for row in (3, 4, 5) for column in (4, 5, 6)}
    assert all(image == 1 for image, _, _ in found)


def test_in_a_max_pool(native):
    x = normal(2, 5, 8, 8)
    x[0, 2, 3, 3] = np.nan
    window = (3, 2, ((1, 1), (1, 1)))
    y = native.max_pool(Tensor(x), *window).numpy()
    assert {tuple(place) for place in np.argwhere(np.isnan(y))} == {
        (0, 2, row, column) for row in (1, 2) for column in (1, 2)
    }
    dy = np.ones_like(y)
    with_places, (dx,) = differentiate(lambda t: native.max_pool(t, *window), dy, [x])
    assert np.array_equal(with_places, y, equal_nan=True)
    assert dx[0, 2, 3, 3] == 4  # of all windows that it is in


def test_the_relu_of_a_sum(native):
    x = np.float32([[np.nan, -1.0, 2.0]]).reshape(1, 3, 1, 1)
    y = native.add(Tensor(x), F.zeros_like(Tensor(x)), relu=True).numpy().ravel()
    assert np.array_equal(y, [np.nan, 0.0, 2.0], equal_nan=True)
