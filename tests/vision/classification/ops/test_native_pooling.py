import megengine as mge
import megengine.functional as F
import numpy as np
import pytest

from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps

from . import reference
from .values import Counted, differentiate, distinct, error, normal

# Images, channels, height, width.
SHAPES = [(1, 3, 7, 7), (2, 16, 8, 9), (2, 21, 5, 6), (1, 40, 3, 3)]


def check(function, reference_of, x, tolerance=1e-6):
    expected, gradient = reference_of
    dy = normal(*expected.shape, seed=1)
    found, (dx,) = differentiate(function, dy, [x])
    assert error(found, expected) < tolerance
    assert error(dx, gradient(dy)) < tolerance


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rows", [(0, 0), (1, 1), (0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("columns", [(0, 0), (1, 1), (0, 1), (1, 0)], ids=str)
def test_max_pooling_with_any_padding(native, shape, rows, columns):
    x, padding = distinct(*shape), (rows, columns)
    expected = reference.max_pool(x, 3, 2, padding)
    check(lambda tensor: native.max_pool(tensor, 3, 2, padding), expected, x)
    for ops in (native, PlainOps()):  # where no gradient is wanted
        assert np.array_equal(ops.max_pool(mge.Tensor(x), 3, 2, padding).numpy(), expected[0])


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 3), (5, 2), (1, 1)])
def test_max_pooling_over_other_windows(native, kernel, stride):
    x = distinct(2, 17, 11, 9)
    for padding in (((0, 0), (0, 0)), ((kernel // 2, kernel // 2), (0, kernel // 2))):
        expected = reference.max_pool(x, kernel, stride, padding)
        check(lambda t, p=padding: native.max_pool(t, kernel, stride, p), expected, x)


def test_of_equal_values_the_first_gets_the_gradient(native):
    """As in PyTorch; MegEngine gives it to each of them, so that it grows."""
    x = np.full((1, 2, 4, 4), 3, np.float32)
    dy = np.ones((1, 2, 2, 2), np.float32)
    _, (dx,) = differentiate(lambda t: native.max_pool(t, 2, 2, ((0, 0), (0, 0))), dy, [x])
    first = np.zeros((4, 4))
    first[::2, ::2] = 1
    assert np.array_equal(dx, np.stack([first, first])[None])


def test_padding_never_wins(native):
    x = -1 - np.abs(normal(1, 4, 5, 5))
    found = native.max_pool(mge.Tensor(x), 3, 2, ((1, 1), (1, 1))).numpy()
    assert found.max() < 0


@pytest.mark.parametrize("shape", [*SHAPES, (2, 5, 1, 1), (1, 20, 1, 4), (1, 3, 2, 2)], ids=str)
def test_halving(native, shape):
    x = normal(*shape)
    check(native.halve, reference.halve(x), x)


@pytest.mark.parametrize("shape", [*SHAPES, (3, 50, 1, 1), (2, 19, 64, 50)], ids=str)
def test_mean(native, shape):
    x = normal(*shape, mean=1)
    pixels = shape[2] * shape[3]

    def gradient(dy):
        return np.broadcast_to(dy[:, :, None, None] / pixels, shape)

    check(native.mean, (x.mean((2, 3), dtype=np.float64), gradient), x, tolerance=5e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (8, 8), (3, 4), (0, 5)])
def test_subsampling(native, shape, stride, before, after):
    x = normal(*shape)
    channels = ((0, 0), (before, after), (0, 0), (0, 0))
    expected = np.pad(x[:, :, ::stride, ::stride], channels)

    def gradient(dy):
        dx = np.zeros(shape)
        dx[:, :, ::stride, ::stride] = dy[:, before : before + shape[1]]
        return dx

    check(lambda t: native.subsample(t * 1, stride, before, after), (expected, gradient), x, 1e-7)
    plain = PlainOps().subsample(mge.Tensor(x), stride, before, after).numpy()
    assert np.array_equal(plain, expected)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 5, 5), (3, 16, 4, 4), (2, 33, 9, 7)], ids=str
)
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
def test_addition(native, shape, relu):
    x, shortcut, dy = normal(*shape), normal(*shape, seed=1), normal(*shape, seed=2)
    total = x.astype(np.float64) + shortcut
    found, gradients = differentiate(lambda a, b: native.add(a, b, relu), dy, [x, shortcut])
    assert np.abs(found - (np.maximum(total, 0) if relu else total)).max() < 1e-6
    for gradient in gradients:
        assert np.array_equal(gradient, np.where(total > 0, dy, 0) if relu else dy)


def test_no_gradient_passes_a_relu_at_zero(native):
    x = normal(2, 5, 3, 3)
    _, gradients = differentiate(lambda a, b: native.add(a, b, True), np.ones_like(x), [x, -x])
    assert not gradients[0].any()
    assert not gradients[1].any()


def test_maps_of_different_shapes_are_not_added(native):
    for shape in ((2, 16, 1, 1), (2, 8, 4, 4), (1, 16, 4, 4)):
        with pytest.raises(ValueError, match="maps of one shape expected"):
            native.add(mge.Tensor(normal(2, 16, 4, 4)), mge.Tensor(normal(*shape)))


def test_a_fork_adds_the_gradients_of_its_branches(kernels):
    counted = Counted(kernels)
    native = NativeOps(counted)
    x, dy = normal(2, 19, 5, 3), normal(2, 19, 5, 3, seed=1)

    def compute(tensor):
        one, other = native.fork(tensor)
        return one * one + 3 * other

    found, (dx,) = differentiate(compute, dy, [x])
    assert error(found, x.astype(np.float64) ** 2 + 3 * x) < 1e-6
    assert error(dx, dy * (2 * x.astype(np.float64) + 3)) < 1e-6
    assert counted.names == ["Add"]


@pytest.mark.parametrize("used", [0, 1])
def test_a_branch_that_nobody_uses(native, used):
    x, dy = normal(2, 5, 3, 3), normal(2, 5, 3, 3, seed=1)
    _, (dx,) = differentiate(lambda tensor: 2 * native.fork(tensor)[used], dy, [x])
    assert np.array_equal(dx, 2 * dy)


NOT_FINITE = np.float32([np.nan, np.inf, -np.inf, 1, -1, 0])


def placed(value):
    """One such value in the middle of a map of ordinary ones, in one of 20 channels."""
    x = normal(1, 20, 5, 5)
    x[0, 17, 2, 2] = value
    return x


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
def test_values_that_are_not_finite(native, value):
    """They pass as IEEE 754 has it. MegEngine's ReLU makes zero of NaN, which hides it."""
    x = placed(value)
    tensor, zeros = mge.Tensor(x), mge.Tensor(np.zeros_like(x))
    rectified = np.where(np.isnan(x), x, np.maximum(x, 0))
    np.testing.assert_array_equal(native.add(tensor, zeros, relu=True).numpy(), rectified)
    if not np.isnan(value):
        np.testing.assert_array_equal(F.relu(tensor).numpy(), rectified)
    for found, expected in (
        (native.mean(tensor), tensor.mean(axis=(2, 3))),
        (native.halve(tensor), PlainOps().halve(tensor)),
        (native.subsample(tensor, 2, 1, 1), PlainOps().subsample(tensor, 2, 1, 1)),
    ):
        np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
def test_max_pooling_of_values_that_are_not_finite(native, value):
    """NaN wins against any number, where MegEngine's own loses it; else the two agree."""
    tensor, padding = mge.Tensor(placed(value)), ((1, 1), (1, 1))
    expected = PlainOps().max_pool(tensor, 3, 2, padding).numpy().copy()
    if np.isnan(value):
        expected[0, 17, 1, 1] = value  # the one window that the middle is in
    np.testing.assert_array_equal(native.max_pool(tensor, 3, 2, padding).numpy(), expected)


def test_a_window_of_nothing_but_minus_infinity(native):
    """MegEngine's own makes the smallest finite number of it."""
    tensor = mge.Tensor(np.full((1, 3, 4, 4), -np.inf, np.float32))
    found = native.max_pool(tensor, 3, 2, ((1, 1), (1, 1))).numpy()
    assert np.array_equal(found, np.full((1, 3, 2, 2), -np.inf))
