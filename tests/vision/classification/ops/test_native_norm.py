import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps

from . import reference
from .values import Counted, differentiate, error, normal

# Images, channels, height, width: below, at and beyond 16 channels and 32 rows.
SHAPES = [
    (2, 3, 3, 5),
    (2, 16, 1, 3),
    (1, 40, 6, 7),
    (4, 17, 9, 9),
    (3, 64, 32, 20),
    (16, 20, 1, 1),
]


def norm_of(channels, training, kind=M.BatchNorm2d, **options):
    norm = kind(channels, **{"eps": 2e-3, "momentum": 0.7, **options})
    rng = np.random.default_rng(9)
    shape = (1, channels, 1, 1)
    for name, values in {
        "weight": rng.normal(0, 1, shape),  # both signs
        "bias": rng.normal(0, 1, shape),
        "running_mean": rng.normal(0, 1, shape),
        "running_var": rng.uniform(0.3, 3, shape),
    }.items():
        if getattr(norm, name) is not None:
            getattr(norm, name)._reset(values.astype(np.float32))
    norm.train(training)
    return norm


def values_of(norm):
    """gamma, beta, running mean and variance, per channel."""
    names = ("weight", "bias", "running_mean", "running_var")
    return [getattr(norm, name).numpy().ravel() for name in names]


def expected_of(norm, x, **options):
    gamma, beta, mean, variance = values_of(norm)
    moments = None if norm.training else (mean, variance)
    return reference.batch_norm(x, gamma, beta, norm.eps, moments, **options)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 16, 3, 3)])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_gradients_of_the_reference_are_those_of_differences(shape, relu, training):
    norm, x, shortcut = norm_of(shape[1], training), normal(*shape), normal(*shape, seed=1)
    dy = normal(*shape, seed=2)
    _, gradients, _ = expected_of(norm, x, shortcut=shortcut, relu=relu)
    dx = gradients(dy)[0]
    step = 1e-6 * normal(*shape, seed=3).astype(np.float64)
    above, below = (
        (expected_of(norm, x + sign * step, shortcut=shortcut, relu=relu)[0] * dy).sum()
        for sign in (1, -1)
    )
    assert (above - below) / 2 == pytest.approx((dx * step).sum(), rel=1e-4)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_every_gradient(native, shape, added, relu, training):
    norm = norm_of(shape[1], training)
    inputs = [normal(*shape, mean=0.5, deviation=2)]
    inputs += [normal(*shape, seed=1)] if added else []
    expected, gradients, _ = expected_of(
        norm, inputs[0], shortcut=inputs[1] if added else None, relu=relu
    )
    dy = normal(*shape, seed=2)
    parameters = [norm.weight, norm.bias]
    pixel = M.Conv2d(shape[1], shape[1], 1, bias=False)  # the identity, for conv_norm
    pixel.weight._reset(np.eye(shape[1], dtype=np.float32).reshape(pixel.weight.shape))

    def compute(x, *shortcut):
        if not added:
            return native.norm(norm, x, relu)
        return native.conv_norm(pixel, norm, x, *shortcut, relu=relu)

    found, (dx, *dshortcut, dgamma, dbeta) = differentiate(compute, dy, inputs, parameters)
    assert error(found, expected) < 2e-6
    expected_dx, expected_dgamma, expected_dbeta, expected_dshortcut = gradients(dy)
    assert error(dx, expected_dx) < 5e-6
    assert dgamma.shape == norm.weight.shape
    assert error(dgamma.ravel(), expected_dgamma) < 5e-6
    assert error(dbeta.ravel(), expected_dbeta) < 5e-6
    for each in dshortcut:
        assert error(each, expected_dshortcut) < 1e-6


def test_running_statistics(native):
    """Means and the unbiased variances, step by step; evaluation leaves them."""
    shape = (3, 20, 5, 7)
    norm = norm_of(20, training=True)
    _, _, mean, variance = (each.astype(np.float64) for each in values_of(norm))
    for seed in range(3):
        x = normal(*shape, seed=seed, mean=2)
        native.norm(norm, mge.Tensor(x))
        new = x.astype(np.float64).transpose(1, 0, 2, 3).reshape(20, -1)
        mean = 0.7 * mean + 0.3 * new.mean(1)
        variance = 0.7 * variance + 0.3 * new.var(1, ddof=1)
        assert error(norm.running_mean.numpy().ravel(), mean) < 1e-6
        assert error(norm.running_var.numpy().ravel(), variance) < 1e-6
    norm.eval()
    native.norm(norm, mge.Tensor(x))
    assert error(norm.running_mean.numpy().ravel(), mean) < 1e-6
    assert error(norm.running_var.numpy().ravel(), variance) < 1e-6
    assert norm.running_mean.shape == norm.running_var.shape == (1, 20, 1, 1)


def test_statistics_of_one_value(native):
    """Its variance is zero. MegEngine divides by zero for the unbiased one, and keeps a NaN."""
    norm = M.BatchNorm2d(2)
    found = native.norm(norm, mge.Tensor(np.float32([3, -4]).reshape(1, 2, 1, 1)))
    assert np.abs(found.numpy()).max() < 1e-3
    assert norm.running_mean.numpy().ravel() == pytest.approx([0.3, -0.4])
    assert norm.running_var.numpy().ravel() == pytest.approx([0.9, 0.9])


def statistics_of(norm):
    """What the last step left, given ``momentum=0``: mean and unbiased variance."""
    return norm.running_mean.numpy().ravel(), norm.running_var.numpy().ravel()


@pytest.mark.parametrize("shape", [(4, 5, 9, 9), (8, 20, 40, 40)], ids=str)
def test_values_far_from_zero_keep_their_variance(native, shape):
    """A mean of 1000: squares of 1,000,000 in float32 would know nothing of a variance of 1."""
    norm = norm_of(shape[1], training=True, momentum=0.0)
    x = normal(*shape, mean=1000)
    expected, gradients, (mean, variance) = expected_of(norm, x)
    dy = normal(*shape, seed=2)
    found, (dx, dgamma, _) = differentiate(
        lambda tensor: native.norm(norm, tensor), dy, [x], [norm.weight, norm.bias]
    )
    count = x.size // shape[1]
    assert error(statistics_of(norm)[0], mean) < 1e-7
    assert error(statistics_of(norm)[1], variance * count / (count - 1)) < 1e-6
    # 1000 * scale + shift in float32, where scale is up to 2.
    assert np.abs(found - expected).max() < 5e-4
    assert error(dx, gradients(dy)[0]) < 1e-4
    assert error(dgamma.ravel(), gradients(dy)[1]) < 1e-4


def test_a_first_value_far_from_the_others(native):
    """Sums are taken about it."""
    norm = norm_of(3, training=True, momentum=0.0)
    x = normal(4, 3, 9, 9)
    x[0, :, 0, 0] = 100
    expected, _, (_, variance) = expected_of(norm, x)
    assert error(native.norm(norm, mge.Tensor(x)).numpy(), expected) < 3e-5
    assert error(statistics_of(norm)[1], variance * 324 / 323) < 3e-5


def test_a_long_sum_loses_nothing(native):
    """131,072 values; each of the sums in float32 alone would be off by more."""
    norm = norm_of(2, training=True, momentum=0.0)
    x = normal(8, 2, 128, 128, mean=1, deviation=0.1)
    _, gradients, (mean, variance) = expected_of(norm, x)
    dy = normal(*x.shape, seed=2, mean=1)
    _, (_, dgamma, dbeta) = differentiate(
        lambda tensor: native.norm(norm, tensor), dy, [x], [norm.weight, norm.bias]
    )
    assert error(statistics_of(norm)[0], mean) < 1e-7
    assert error(statistics_of(norm)[1], variance * 131072 / 131071) < 1e-6
    assert error(dbeta.ravel(), gradients(dy)[2]) < 1e-7
    # The mean is kept in float32: 6e-8 of 1, times 131,072 gradients, over a deviation of 0.1.
    assert error(dgamma.ravel(), gradients(dy)[1]) < 1e-4


OTHERS = {
    "frozen": lambda: norm_of(20, True, freeze=True),
    "without-affine": lambda: norm_of(20, True, affine=False),
    "without-running-statistics": lambda: norm_of(20, True, track_running_stats=False),
    "groups": lambda: M.GroupNorm(5, 20),
    "instances": lambda: M.InstanceNorm(20),
    "none": M.Identity,
    "synchronised-alone": lambda: norm_of(20, True, M.SyncBatchNorm),
}


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_norms_are_what_they_are_in_megengine(native, name, training, added, relu):
    x, shortcut = normal(3, 8, 9, 7), normal(3, 20, 9, 7, seed=1)
    dy = normal(3, 20, 9, 7, seed=2)
    mge.random.seed(0)
    conv = M.Conv2d(8, 20, 3, 1, 1, bias=False)
    results = []
    for ops in (None, native):
        norm = OTHERS[name]()
        norm.train(training)

        def compute(x, shortcut, ops=ops, norm=norm):
            if ops is not None:
                return ops.conv_norm(conv, norm, x, shortcut if added else None, relu)
            y = norm(conv(x))
            y = y + (shortcut if added else 0 * shortcut)
            return F.relu(y) if relu else y

        inputs = [x, shortcut]
        if ops is not None and not added:
            found = differentiate(lambda x: compute(x, None), dy, [x], [conv.weight])
            found[1].insert(1, np.zeros_like(shortcut))
        else:
            found = differentiate(compute, dy, inputs, [conv.weight])
        state = [each.numpy() for each in norm.buffers()]
        results.append([found[0], *found[1], *state])
    for found, expected in zip(results[1], results[0]):
        assert np.abs(found - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_norms_where_nothing_is_differentiated(native, name, training):
    """Where a plain one in evaluation is folded into the convolution."""
    conv, x = M.Conv2d(8, 20, 3, 1, 1, bias=False), mge.Tensor(normal(3, 8, 9, 7))
    results = []
    for ops in (PlainOps(), native):
        norm = OTHERS[name]()
        norm.train(training)
        results.append(ops.conv_norm(conv, norm, x, relu=True).numpy())
    assert error(*reversed(results)) < 1e-5


def test_one_convolution_does_it_all_in_evaluation(kernels):
    counted = Counted(kernels)
    conv, norm = M.Conv2d(8, 16, 1, bias=False), norm_of(16, training=False)
    x, shortcut = mge.Tensor(normal(2, 8, 5, 5)), mge.Tensor(normal(2, 16, 5, 5))
    NativeOps(counted).conv_norm(conv, norm, x, relu=True)
    NativeOps(counted).conv_norm(conv, norm, x, shortcut, relu=True)
    assert counted.names == ["Fold", "ConvBias", "Fold", "ConvBiasAdd"]


@pytest.mark.parametrize("kind", [M.BatchNorm2d, M.SyncBatchNorm])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_norm_learns_nothing(native, kind, frozen):
    norm, x = kind(4, freeze=frozen), mge.Tensor(normal(2, 4, 3, 3))
    manager = GradManager().attach([x, norm.weight, norm.bias])
    with manager:
        manager.backward((native.norm(norm, x) ** 2).sum())
    assert (norm.weight.grad is None) == (norm.bias.grad is None) == frozen
    assert np.array_equal(norm.running_mean.numpy(), np.zeros((1, 4, 1, 1))) == frozen


CASES = {
    "pixel": (24, 40, 1, 1, 0, 1),
    "winograd": (64, 40, 3, 1, 1, 1),
    "halving": (16, 20, 3, 2, 1, 1),
    "groups": (64, 64, 3, 1, 1, 32),
    "stem": (3, 64, 7, 2, 3, 1),
}


@pytest.mark.parametrize("recorded", [False, True], ids=["folded", "recorded"])
@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("case", CASES)
def test_convolution_and_norm_in_evaluation(native, case, added, relu, recorded):
    """Without a gradient to record, one convolution does it all."""
    inputs, outputs, kernel, stride, padding, groups = CASES[case]
    conv = M.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    norm = norm_of(outputs, training=False)
    x = normal(2, inputs, 17, 18)
    middle, convolution_gradients = reference.conv(
        x, conv.weight.numpy(), conv.stride, conv.padding, conv.dilation
    )
    shortcut = normal(*middle.shape, seed=1) if added else None
    expected, gradients, _ = expected_of(norm, middle, shortcut=shortcut, relu=relu)
    operands = [x, *([shortcut] if added else [])]
    tolerance = 2e-5 if case == "winograd" else 5e-6
    if not recorded:
        found = native.conv_norm(conv, norm, *map(mge.Tensor, operands), relu=relu).numpy()
        assert error(found, expected) < tolerance
        return
    dy = normal(*expected.shape, seed=2)
    found, (dx, *dshortcut, dweight) = differentiate(
        lambda *tensors: native.conv_norm(conv, norm, *tensors, relu=relu),
        *(dy, operands, [conv.weight]),
    )
    assert error(found, expected) < tolerance
    dmiddle, _, _, expected_dshortcut = gradients(dy)
    expected_dx, expected_dweight, _ = convolution_gradients(dmiddle)
    assert error(dx, expected_dx) < 2e-5
    assert error(dweight, expected_dweight) < 2e-5
    for each in dshortcut:
        assert error(each, expected_dshortcut) < 1e-6


def test_a_convolution_with_bias_before_a_norm(native):
    conv, norm = M.Conv2d(8, 16, 3, 1, 1), norm_of(16, training=False)
    conv.bias._reset(normal(1, 16, 1, 1, seed=4))
    x = normal(2, 8, 9, 9)
    geometry = conv.stride, conv.padding, conv.dilation
    middle = reference.conv(x, conv.weight.numpy(), *geometry)[0] + conv.bias.numpy()
    found = native.conv_norm(conv, norm, mge.Tensor(x)).numpy()
    assert error(found, expected_of(norm, middle)[0]) < 2e-6


LEARNING = ("x", "shortcut", "conv.weight", "norm.weight", "norm.bias")


@pytest.mark.parametrize("name", LEARNING)
def test_one_operand_alone_may_learn_in_evaluation(native, name):
    conv, norm = M.Conv2d(8, 16, 1, bias=False), norm_of(16, training=False)
    x, shortcut = mge.Tensor(normal(2, 8, 5, 5)), mge.Tensor(normal(2, 16, 5, 5, seed=1))
    operands = (x, shortcut, conv.weight, norm.weight, norm.bias)
    learning = operands[LEARNING.index(name)]
    dy = normal(2, 16, 5, 5, seed=2)
    manager = GradManager().attach([learning])
    with manager:
        manager.backward(native.conv_norm(conv, norm, x, shortcut, relu=True), mge.Tensor(dy))
    geometry = conv.stride, conv.padding, conv.dilation
    middle, convolution_gradients = reference.conv(x.numpy(), conv.weight.numpy(), *geometry)
    _, gradients, _ = expected_of(norm, middle, shortcut=shortcut.numpy(), relu=True)
    dmiddle, dgamma, dbeta, dshortcut = gradients(dy)
    dx, dweight, _ = convolution_gradients(dmiddle)
    expected = dict(zip(LEARNING, (dx, dshortcut, dweight, dgamma, dbeta)))[name]
    assert error(learning.grad.numpy().reshape(expected.shape), expected) < 1e-5


def test_wrong_channels_and_shapes_are_an_error(native):
    norm, x = M.BatchNorm2d(8), mge.Tensor(normal(2, 16, 4, 4))
    with pytest.raises(ValueError, match="a normalisation of as many channels"):
        native.norm(norm, x)
    conv, norm = M.Conv2d(16, 8, 1, bias=False), M.BatchNorm2d(8)
    for shape in ((2, 8, 4, 1), (1, 8, 4, 4), (2, 4, 4, 4)):
        with pytest.raises(ValueError, match="a shortcut of the map's shape"):
            native.conv_norm(conv, norm, x, mge.Tensor(normal(*shape)))
    with pytest.raises(ValueError, match="a normalisation of as many channels"):
        native.conv_norm(conv, M.BatchNorm2d(4), x)
