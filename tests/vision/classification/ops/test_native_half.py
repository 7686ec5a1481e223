"""Maps in bfloat16: each operation is float64's on rounded operands, rounded once.

A bfloat16 has eight significant bits, so that rounding changes a number by at most 2^-8 of it.
Sums are taken in float32: of n products they are off by at most n 2^-24 of the sum of magnitudes,
by Winograd's algorithm by some 1e-5 of the largest sum.
"""

import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.core.tensor.dtype import bfloat16

from official.vision.classification.ops.accelerate import attach
from official.vision.classification.ops.build import processor_flags
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.resnet import cifar, model, preact
from tests.vision.classification.resnet.reference import randomise_statistics

from . import reference
from .test_native_convolution import CASES, layer_and_input, tolerance
from .test_native_norm import norm_of, values_of
from .values import error, normal

pytestmark = pytest.mark.skipif(
    "avx512_bf16" not in processor_flags(), reason="this CPU has no bfloat16 instructions"
)
UNIT = 2.0**-8
FLOAT = 2.0**-24


@pytest.fixture(scope="module")
def half(kernels):
    return NativeOps(kernels, half=True)


def rounded(values):
    """To the nearest bfloat16, of two as near the one whose last bit is zero; as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).view(np.float32)


def map_of(*shape, **options):
    """Values that are bfloat16's."""
    return rounded(normal(*shape, **options))


def differentiate(function, dy, inputs, parameters=()):
    """Output and gradients in float32, and the output's type; ``dy`` takes that type, too."""
    tensors = [mge.Tensor(value) for value in inputs]
    manager = GradManager().attach([*tensors, *parameters])
    with manager:
        y = function(*tensors)
        manager.backward(y, mge.Tensor(dy).astype(y.dtype))
    gradients = [each.grad for each in (*tensors, *parameters)]
    assert all(each.dtype == np.float32 for each in gradients)
    for parameter in parameters:
        parameter.grad = None
    return y.astype("float32").numpy(), [each.numpy() for each in gradients], y.dtype


def assert_rounded_once(found, expected, summed=0.0):
    """``summed`` is how far the sum may be off before it is rounded."""
    assert np.array_equal(rounded(found), found)
    assert found.shape == expected.shape
    distance = np.abs(found - expected)
    assert (distance <= UNIT * np.abs(expected) + (1 + UNIT) * summed + 1e-30).all()
    assert distance.max() > 0 or np.array_equal(rounded(expected), expected)


def as_map(tensor):
    return tensor.astype(bfloat16)


def test_rounding_is_to_nearest_even():
    """The reference's own, by hand; MegEngine's conversion is the same."""
    values = np.float32([1, 1 + UNIT, 1 + 3 * UNIT, 1 + 1.01 * UNIT, -1 - 3 * UNIT, 3e38, 1e-30])
    expected = np.float32([1, 1, 1 + 4 * UNIT, 1 + 2 * UNIT, -1 - 4 * UNIT])
    assert np.array_equal(rounded(values)[:5], expected)
    many = np.concatenate([values, normal(1000)])
    assert np.array_equal(as_map(mge.Tensor(many)).astype("float32").numpy(), rounded(many))


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("case", CASES)
def test_convolution(half, case, bias):
    """A weight is rounded where it is used; its gradient, and the bias, are float32."""
    layer, x = layer_and_input(case, bias)
    x, weight = rounded(x), rounded(layer.weight.numpy())
    geometry = layer.stride, layer.padding, layer.dilation
    expected, gradients = reference.conv(x, weight, *geometry)
    magnitude, of_gradients = reference.conv(np.abs(x), np.abs(weight), *geometry)
    added = layer.bias.numpy() if bias else np.zeros((1, 1, 1, 1), np.float32)
    dy = map_of(*expected.shape, seed=3)
    before = layer.weight.numpy()
    parameters = [layer.weight, *([layer.bias] if bias else [])]
    found, (dx, dweight, *dbias), dtype = differentiate(
        lambda tensor: half.conv(layer, tensor), dy, [x], parameters
    )
    assert dtype == bfloat16
    products = weight[0, ..., 0, 0].size * weight.shape[-1] * weight.shape[-2]
    sums = (products + 2) * FLOAT
    off = tolerance(case) if case.startswith("winograd") else 0

    def slack(values):
        return off * np.abs(values).max()

    summed = sums * (magnitude + np.abs(added)) + slack(expected)
    assert_rounded_once(found, expected + added, summed)
    expected_dx, expected_dweight, expected_dbias = gradients(dy)
    of_dx, of_dweight, of_dbias = of_gradients(np.abs(dy))
    filters = products / weight.shape[-3] * layer.out_channels / layer.groups
    assert_rounded_once(dx, expected_dx, (filters + 2) * FLOAT * of_dx + slack(expected_dx))
    pixels = dy.size / layer.out_channels
    summed = (pixels + 2) * FLOAT * of_dweight + slack(expected_dweight)
    assert (np.abs(dweight - expected_dweight) <= summed).all()
    for each in dbias:
        assert (np.abs(each.ravel() - expected_dbias) <= (pixels + 2) * FLOAT * of_dbias).all()
    assert np.array_equal(layer.weight.numpy(), before)
    assert layer.weight.dtype == np.float32


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", [(2, 3, 3, 5), (4, 17, 9, 9), (3, 64, 32, 20)], ids=str)
def test_norm(half, shape, training, added, relu):
    """Statistics and the gradients of gamma and beta are float32's."""
    norm = norm_of(shape[1], training)
    gamma, beta, mean, variance = values_of(norm)
    x, shortcut = map_of(*shape, mean=0.5, deviation=2), map_of(*shape, seed=1)
    dy = map_of(*shape, seed=2)
    moments = None if training else (mean, variance)
    options = {"shortcut": shortcut if added else None, "relu": relu}
    expected, gradients, statistics = reference.batch_norm(
        x, gamma, beta, norm.eps, moments, **options
    )
    found, (dx, *dshortcut, dgamma, dbeta), dtype = differentiate(
        lambda x, *shortcut: half.conv_norm(M.Identity(), norm, x, *shortcut, relu=relu),
        *(dy, [x, *([shortcut] if added else [])], [norm.weight, norm.bias]),
    )
    assert dtype == bfloat16
    scale = 1e-5 * np.abs(expected).max()
    assert_rounded_once(found, expected, scale)
    expected_dx, expected_dgamma, expected_dbeta, expected_dshortcut = gradients(dy)
    assert_rounded_once(dx, expected_dx, 1e-5 * np.abs(expected_dx).max())
    assert error(dgamma.ravel(), expected_dgamma) < 1e-5
    assert error(dbeta.ravel(), expected_dbeta) < 1e-5
    for each in dshortcut:
        assert np.array_equal(each, expected_dshortcut)
    if training:
        count = x.size // shape[1]
        mean = 0.7 * mean + 0.3 * statistics[0]
        variance = 0.7 * variance + 0.3 * statistics[1] * count / (count - 1)
    assert error(norm.running_mean.numpy().ravel(), mean) < 1e-6
    assert error(norm.running_var.numpy().ravel(), variance) < 1e-6


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("added", [False, True], ids=["alone", "shortcut"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_folded_norm(half, kernel, added, relu):
    """The folded weight is rounded as a whole: by 2^-8 of each product."""
    conv = M.Conv2d(40, 64, kernel, padding=kernel // 2, bias=False)
    norm = norm_of(64, training=False)
    x, weight = map_of(2, 40, 17, 18), conv.weight.numpy()
    gamma, beta, mean, variance = values_of(norm)
    scale = (gamma / np.sqrt(variance.astype(np.float64) + norm.eps)).reshape(-1, 1, 1, 1)
    geometry = conv.stride, conv.padding, conv.dilation
    shift = beta - mean * scale.ravel()
    expected = reference.conv(x, weight * scale, *geometry)[0] + shift.reshape(1, -1, 1, 1)
    magnitude = reference.conv(np.abs(x), np.abs(weight * scale), *geometry)[0]
    shortcut = map_of(*expected.shape, seed=1) if added else np.zeros_like(expected)
    expected = expected + shortcut
    expected = np.maximum(expected, 0) if relu else expected
    operands = [x, *([np.float32(shortcut)] if added else [])]
    found = half.conv_norm(conv, norm, *map(mge.Tensor, operands), relu=relu)
    assert found.dtype == bfloat16
    assert_rounded_once(found.astype("float32").numpy(), expected, 1.01 * UNIT * magnitude)


@pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 33, 9, 7)], ids=str)
def test_addition(half, shape, relu):
    x, shortcut, dy = map_of(*shape), map_of(*shape, seed=1), map_of(*shape, seed=2)
    found, gradients, dtype = differentiate(lambda a, b: half.add(a, b, relu), dy, [x, shortcut])
    assert dtype == bfloat16
    total = x + shortcut  # exact but for float32's own rounding
    assert np.array_equal(found, rounded(np.maximum(total, 0) if relu else total))
    for gradient in gradients:
        assert np.array_equal(gradient, np.where(total > 0, dy, 0) if relu else dy)


def test_a_fork_rounds_the_sum_of_its_gradients(half):
    x, one, other = map_of(2, 19, 5, 3), map_of(2, 19, 5, 3, seed=1), map_of(2, 19, 5, 3, seed=2)

    def both(x):
        left, right = half.fork(as_map(x))
        return F.concat([left, right])

    found, (dx,), _ = differentiate(both, np.concatenate([one, other]), [x])
    assert np.array_equal(found, np.concatenate([x, x]))
    assert np.array_equal(dx, rounded(one + other))


SHAPES = pytest.mark.parametrize("shape", [(1, 3, 7, 7), (2, 21, 5, 6), (1, 40, 3, 3)], ids=str)


@SHAPES
def test_max_pooling(half, shape):
    """Of whole numbers below 128, which are bfloat16's, all of a map different."""
    rng, pixels = np.random.default_rng(0), shape[2] * shape[3]
    x = np.stack([rng.permutation(pixels) - 20 for _ in range(shape[0] * shape[1])])
    x, padding = x.reshape(shape).astype(np.float32), ((1, 1), (0, 1))
    expected, gradient = reference.max_pool(x, 3, 2, padding)
    dy = map_of(*expected.shape, seed=1)
    found, (dx,), dtype = differentiate(lambda x: half.max_pool(as_map(x), 3, 2, padding), dy, [x])
    assert dtype == bfloat16
    assert np.array_equal(found, expected)
    assert_rounded_once(dx, gradient(dy), 4 * FLOAT * gradient(np.abs(dy)))


@SHAPES
def test_halving(half, shape):
    x = map_of(*shape, mean=1)
    expected, gradient = reference.halve(x)
    dy = map_of(*expected.shape, seed=1)
    found, (dx,), dtype = differentiate(lambda x: half.halve(as_map(x)), dy, [x])
    assert dtype == bfloat16
    assert np.array_equal(expected, np.float32(expected))  # so that rounding is all there is
    assert np.array_equal(found, rounded(expected))
    assert np.array_equal(dx, gradient(dy))  # halves and quarters are exact


@SHAPES
def test_subsampling(half, shape):
    x = map_of(*shape)
    expected = np.pad(x[:, :, ::2, ::2], ((0, 0), (3, 4), (0, 0), (0, 0)))
    dy = map_of(*expected.shape, seed=1)
    found, (dx,), dtype = differentiate(lambda x: half.subsample(as_map(x), 2, 3, 4), dy, [x])
    assert dtype == bfloat16
    assert np.array_equal(found, expected)
    spread = np.zeros_like(x)
    spread[:, :, ::2, ::2] = dy[:, 3:-4]
    assert np.array_equal(dx, spread)


@pytest.mark.parametrize("shape", [(1, 3, 7, 7), (3, 50, 1, 1), (2, 19, 64, 50)], ids=str)
def test_mean_is_float32(half, shape):
    x, dy = map_of(*shape, mean=1), normal(*shape[:2], seed=1)
    found, (dx,), dtype = differentiate(lambda x: half.mean(as_map(x)), dy, [x])
    assert dtype == np.float32
    assert error(found, x.mean((2, 3), dtype=np.float64)) < 5e-6
    expected = np.broadcast_to(dy[:, :, None, None] / np.float64(shape[2] * shape[3]), shape)
    assert_rounded_once(dx, expected, 1e-6 * np.abs(expected))


def test_the_classifier_is_float32(half):
    """It follows the mean: logits and their gradients are not rounded."""
    layer = M.Linear(33, 7)
    weight = layer.weight.numpy().astype(np.float64)
    x, dy = normal(5, 33), normal(5, 7, seed=3)
    found, (dx, dweight, _), dtype = differentiate(
        lambda x: half.linear(layer, x), dy, [x], [layer.weight, layer.bias]
    )
    assert dtype == np.float32
    assert error(found, x @ weight.T + layer.bias.numpy()) < 2e-6
    assert error(dx, dy @ weight) < 2e-6
    assert error(dweight, dy.T @ x.astype(np.float64)) < 2e-6


OTHERS = {
    "groups": lambda ops, x: ops.norm(M.GroupNorm(3, 6), x, relu=True),
    "frozen": lambda ops, x: ops.norm(M.BatchNorm2d(6, freeze=True), x),
    "reflected": lambda ops, x: ops.conv(REFLECTED, x),
}
REFLECTED = M.Conv2d(6, 4, 3, padding=1, padding_mode="reflect")


@pytest.mark.parametrize("name", OTHERS)
def test_layers_that_are_left_to_megengine_get_float32(half, name):
    x = map_of(2, 6, 9, 7)
    expected = OTHERS[name](PlainOps(), mge.Tensor(x)).numpy()
    found = OTHERS[name](half, as_map(mge.Tensor(x)))
    assert found.dtype == np.float32
    assert error(found.numpy(), expected) < 1e-6


def test_what_is_no_number_stays_none(half):
    """With all bits set, so that rounding as a number's would carry into the sign."""
    nan = np.uint32([0x7FFFFFFF]).view(np.float32)[0]
    dy = np.float32([[1, nan, np.inf]])
    _, (dx,), _ = differentiate(lambda x: half.mean(as_map(x)), dy, [map_of(1, 3, 2, 2)])
    assert np.array_equal(dx[0, :, 0, 0], np.float32([0.25, np.nan, np.inf]), equal_nan=True)
    norm = norm_of(3, training=False)
    norm.bias._reset(np.float32([1, nan, -np.inf]).reshape(1, 3, 1, 1))
    found = half.norm(norm, mge.Tensor(map_of(1, 3, 2, 2))).astype("float32").numpy()
    assert np.isfinite(found[0, 0]).all()
    assert np.isnan(found[0, 1]).all()
    assert (found[0, 2] == -np.inf).all()


class RoundedOps(PlainOps):
    """MegEngine's kernels in float32 with every map and its gradient rounded."""

    @staticmethod
    def map(x):
        return x.astype(bfloat16).astype("float32")  # so is the gradient on its way back

    def conv(self, conv, x):
        if not isinstance(conv, M.Conv2d):
            return conv(x)
        weight = conv.weight
        weight = weight + (self.map(weight) - weight).detach()  # its gradient is not rounded
        return self.map(conv.calc_conv(self.map(x), weight, conv.bias))

    def norm(self, norm, x, relu=False):
        return self.map(super().norm(norm, self.map(x), relu))

    def conv_norm(self, conv, norm, x, shortcut=None, relu=False):
        if shortcut is None:
            return self.norm(norm, self.conv(conv, x), relu)
        x = norm(self.conv(conv, x)) + self.map(shortcut)
        return self.map(F.relu(x) if relu else x)

    def fork(self, x):
        return super().fork(self.map(x))

    def add(self, x, shortcut, relu=False):
        return self.map(super().add(self.map(x), self.map(shortcut), relu))

    def max_pool(self, x, kernel, stride, padding):
        return super().max_pool(self.map(x), kernel, stride, padding)

    def halve(self, x):
        return self.map(super().halve(self.map(x)))

    def mean(self, x):
        return super().mean(self.map(x))

    def subsample(self, x, stride, before=0, after=0):
        return super().subsample(self.map(x), stride, before, after)


NETWORKS = {
    "v1d": lambda: model.ResNet(
        model.Bottleneck, (1, 1, 1, 1), 3, stem="deep", avg_down=True, drop_path=0.2
    ),
    "basic": lambda: model.ResNet(model.BasicBlock, (1, 1, 1, 1), 3),
    "resnext": lambda: model.ResNet(model.Bottleneck, (1, 1, 1, 1), 3, groups=4, width_per_group=8),
    "v2": lambda: preact.PreActResNet((1, 1, 1, 1), 3),
    "cifar": lambda: cifar.CifarResNet(1, 3),
}


def step(name, ops, training):
    """Logits, and the gradients of all parameters in one vector, of the same random network."""
    mge.random.seed(0)
    network = attach(randomise_statistics(NETWORKS[name]()), ops)
    network.train(training)
    manager = GradManager().attach(network.parameters())
    images, labels = mge.Tensor(normal(8, 3, 48, 48)), np.arange(8, dtype=np.int32) % 3
    mge.random.seed(1)
    with manager:
        logits = network(images)
        manager.backward(F.nn.cross_entropy(logits, mge.Tensor(labels)))
    assert logits.dtype == np.float32
    assert all(each.grad.dtype == np.float32 for each in network.parameters())
    assert all(value.dtype == np.float32 for value in network.state_dict().values())
    gradient = np.concatenate([each.grad.numpy().ravel() for each in network.parameters()])
    return logits.numpy(), gradient


def distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks(half, name, training):
    """As far from float32 as the rounding of maps makes them, by whatever kernels: no further."""
    found, simulated, exact = (
        step(name, ops, training) for ops in (half, RoundedOps(), PlainOps())
    )
    # In training a rounding of this size turns many a ReLU of so small a batch.
    for own, of_rounding, true, most in zip(found, simulated, exact, (0.05, 0.5)):
        rounding = distance(of_rounding, true)
        assert 1e-4 < rounding < most
        assert 0.7 * rounding < distance(own, true) < 1.4 * rounding


def test_evaluation_without_gradients(half):
    mge.random.seed(0)
    network = randomise_statistics(NETWORKS["basic"]())
    network.eval()
    images = mge.Tensor(normal(4, 3, 64, 64))
    expected = network(images).numpy()
    found = attach(network, half)(images)
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found.numpy() - expected).max() / np.abs(expected).max() < 0.05
