import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.ops.native import NativeOps

from . import reference
from .values import Counted, differentiate, error, normal

# In and out channels, kernel, stride, padding, dilation, groups; images, height, width.
CASES = {
    "stem": (3, 16, 7, 2, 3, 1, 1, 2, 17, 19),
    "one-channel": (1, 5, 3, 1, 1, 1, 1, 1, 9, 6),
    "basic": (8, 8, 3, 1, 1, 1, 1, 2, 9, 9),
    "halving": (24, 40, 3, 2, 1, 1, 1, 2, 11, 8),
    "pixel": (20, 33, 1, 1, 0, 1, 1, 3, 5, 7),
    "every-second-pixel": (16, 32, 1, 2, 0, 1, 1, 2, 10, 9),
    "one-image-of-one-pixel": (32, 16, 1, 1, 0, 1, 1, 1, 1, 1),
    "kernel-on-one-pixel": (16, 16, 3, 1, 1, 1, 1, 2, 1, 1),
    "32-groups": (64, 64, 3, 1, 1, 1, 32, 1, 9, 9),
    "32-groups-halving": (128, 64, 3, 2, 1, 1, 32, 2, 8, 7),
    "depthwise": (32, 32, 3, 2, 1, 1, 32, 2, 8, 7),
    "dilated": (16, 16, 3, 1, 2, 2, 1, 2, 9, 7),
    "dilated-groups": (8, 8, 3, 1, 4, 4, 4, 1, 9, 7),
    "dilated-in-columns-only": (8, 6, 3, 1, (1, 2), (1, 2), 1, 2, 9, 7),
    "oblong": (4, 6, (3, 1), (2, 1), (1, 0), 1, 2, 2, 6, 5),
    "padded-in-rows-only": (16, 16, 3, 1, (1, 0), 1, 1, 2, 25, 22),
    "few-pixels-of-many-channels": (260, 24, 3, 1, 1, 1, 1, 1, 6, 6),
    # Enough channels, and tiles of 4x4 pixels, for Winograd's algorithm.
    "winograd": (64, 64, 3, 1, 1, 1, 1, 2, 24, 16),
    "winograd-odd": (70, 53, 3, 1, 1, 1, 1, 3, 17, 23),
    "winograd-unpadded": (64, 40, 3, 1, 0, 1, 1, 2, 19, 25),
    "winograd-wide-padding": (40, 64, 3, 1, 2, 1, 1, 2, 15, 21),
    "winograd-one-image": (64, 48, 3, 1, 1, 1, 1, 1, 30, 29),
    "winograd-blocks": (500, 44, 3, 1, 1, 1, 1, 2, 41, 39),  # more tiles than are done at once
    "winograd-unequal-blocks": (250, 294, 3, 1, 1, 1, 1, 1, 49, 51),
    "winograd-large-filters": (250, 294, 3, 1, 1, 1, 1, 1, 30, 27),  # transformed by panels
    "winograd-large-filters-in-blocks": (700, 44, 3, 1, 1, 1, 1, 1, 36, 56),
    # As many channels and tiles, but nothing for it.
    "large-dilated": (64, 48, 3, 1, 2, 2, 1, 2, 24, 16),
    "large-halving": (64, 48, 3, 2, 1, 1, 1, 2, 48, 32),
    "large-groups": (64, 64, 3, 1, 1, 1, 2, 2, 24, 16),
    "large-padded-in-rows-only": (64, 48, 3, 1, (1, 0), 1, 1, 2, 24, 18),
}


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def layer_and_input(case, bias=False, mean=0.0):
    inputs, outputs, kernel, stride, padding, dilation, groups, *size = CASES[case]
    mge.random.seed(0)
    layer = M.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups=groups, bias=bias)
    layer.weight._reset(normal(*layer.weight.shape, seed=1))
    if bias:
        layer.bias._reset(normal(*layer.bias.shape, seed=2))
    return layer, normal(size[0], inputs, *size[1:], mean=mean)


def expected_of(layer, x):
    geometry = layer.stride, layer.padding, layer.dilation
    return reference.conv(x, layer.weight.numpy(), *geometry)


@pytest.mark.parametrize("case", ["stem", "32-groups-halving", "dilated-groups", "oblong"])
def test_the_reference_is_the_defining_sum(case):
    layer, x = layer_and_input(case)
    found, gradients = expected_of(layer, x)
    weight = layer.weight.numpy().astype(np.float64)
    weight = weight.reshape(layer.groups, -1, *weight.shape[-3:])
    (stride, strides), (top, left), (rows, columns) = layer.stride, layer.padding, layer.dilation
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)))
    for n, o, i, j in np.argwhere(np.random.default_rng(3).random(found.shape) < 0.02):
        group, filter_ = divmod(o, layer.out_channels // layer.groups)
        first = group * weight.shape[2]
        value = sum(
            weight[group, filter_, c, a, b]
            * padded[n, first + c, i * stride + a * rows, j * strides + b * columns]
            for c, a, b in np.ndindex(weight.shape[2:])
        )
        assert found[n, o, i, j] == pytest.approx(value)
    # The gradients of a linear map are its adjoint.
    dy = normal(*found.shape, seed=4)
    dx, dweight, dbias = gradients(dy)
    product = (found * dy).sum()
    assert (dx * x).sum() == pytest.approx(product)
    assert (dweight.ravel() * layer.weight.numpy().ravel()).sum() == pytest.approx(product)
    assert dbias == pytest.approx(dy.sum((0, 2, 3)), abs=1e-5)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("case", CASES)
def test_output_and_every_gradient(native, case, bias):
    layer, x = layer_and_input(case, bias)
    expected, gradients = expected_of(layer, x)
    dy = normal(*expected.shape, seed=3)
    parameters = [layer.weight, *([layer.bias] if bias else [])]
    found, (dx, dweight, *dbias) = differentiate(
        lambda tensor: native.conv(layer, tensor), dy, [x], parameters
    )
    if bias:
        expected = expected + layer.bias.numpy()
    assert error(found, expected) < tolerance(case)
    expected_dx, expected_dweight, expected_dbias = gradients(dy)
    assert error(dx, expected_dx) < tolerance(case)
    assert error(dweight, expected_dweight) < tolerance(case)
    for each in dbias:
        assert each.shape == layer.bias.shape
        assert error(each.ravel(), expected_dbias) < 1e-5


def tolerance(case):
    """Winograd's transforms take differences of nearly equal numbers."""
    return 2e-5 if case.startswith("winograd") else 2e-6


@pytest.mark.parametrize("case", ["stem", "winograd", "32-groups"])
def test_images_need_no_gradient(kernels, case):
    counted = Counted(kernels)
    native = NativeOps(counted)
    layer, x = layer_and_input(case)
    expected, gradients = expected_of(layer, x)
    dy = normal(*expected.shape, seed=3)
    found, (dweight,) = differentiate(
        lambda: native.conv(layer, mge.Tensor(x)), dy, [], [layer.weight]
    )
    assert error(found, expected) < tolerance(case)
    assert error(dweight, gradients(dy)[1]) < tolerance(case)
    assert counted.names == ["Conv", "ConvFilter"]


@pytest.mark.parametrize("case", ["basic", "winograd"])
def test_a_frozen_weight_passes_the_gradient_on(native, case):
    layer, x = layer_and_input(case)
    expected, gradients = expected_of(layer, x)
    dy = normal(*expected.shape, seed=3)
    _, (dx,) = differentiate(lambda tensor: native.conv(layer, tensor), dy, [x])
    assert error(dx, gradients(dy)[0]) < tolerance(case)
    assert layer.weight.grad is None


def test_values_far_from_zero(native):
    """As after a ReLU, where all are of one sign: sums are large, and errors stay relative."""
    for case in ("basic", "winograd"):
        layer, x = layer_and_input(case, mean=5.0)
        found = native.conv(layer, mge.Tensor(x)).numpy()
        assert error(found, expected_of(layer, x)[0]) < tolerance(case)


def test_all_sizes_around_a_tile(native):
    """Maps that begin and end anywhere within Winograd's tiles."""
    for size in range(1, 14):
        layer = M.Conv2d(48, 33, 3, 1, 1, bias=False)
        x = normal(16, 48, size, 14 - size)
        expected, gradients = expected_of(layer, x)
        dy = normal(*expected.shape, seed=3)
        found, (dx, dweight) = differentiate(
            lambda tensor, layer=layer: native.conv(layer, tensor), dy, [x], [layer.weight]
        )
        assert error(found, expected) < 1e-5
        assert error(dx, gradients(dy)[0]) < 1e-5
        assert error(dweight, gradients(dy)[1]) < 1e-5


def test_one_layer_on_sizes_in_turn(native):
    """What is kept from call to call (plans, packed weights, scratch memory) fits each call."""
    layers = [layer_and_input(case)[0] for case in ("basic", "winograd", "stem", "32-groups")]
    for seed, size in enumerate((9, 21, 5, 21, 9)):
        for layer in layers:
            x = normal(2, layer.in_channels, size, size + 1, seed=seed)
            expected, gradients = expected_of(layer, x)
            dy = normal(*expected.shape, seed=3)
            found, (dweight,) = differentiate(
                lambda layer=layer, x=x: native.conv(layer, mge.Tensor(x)), dy, [], [layer.weight]
            )
            assert error(found, expected) < 1e-5
            assert error(dweight, gradients(dy)[1]) < 1e-5
            layer.weight._reset(normal(*layer.weight.shape, seed=seed + 10))


def test_layers_alike_but_for_one_thing(native):
    """Their maps have the same sizes, so that only that tells what is kept for one from another."""
    usual = {"kernel_size": 3, "stride": 4, "padding": 2, "dilation": 1, "groups": 1}
    x, dy = normal(2, 16, 9, 9), normal(2, 16, 3, 3, seed=3)
    for other in (
        {},
        {"dilation": 2},
        {"padding": 1},
        {"stride": 5},
        {"kernel_size": 2},
        {"groups": 4},
        {"bias": True},
        {},
    ):
        layer = M.Conv2d(16, 16, **{**usual, "bias": False, **other})
        expected, gradients = expected_of(layer, x)
        found, (dx, dweight) = differentiate(
            lambda tensor, layer=layer: native.conv(layer, tensor), dy, [x], [layer.weight]
        )
        assert error(found, expected) < 2e-6, other
        assert error(dx, gradients(dy)[0]) < 2e-6, other
        assert error(dweight, gradients(dy)[1]) < 2e-6, other


def test_more_sizes_than_are_kept(native):
    """Plans are forgotten when there are 1,024 of them; the ones after that are right, too."""
    layer = M.Conv2d(1, 2, 1, bias=False)
    sizes = [(height, width) for height in range(1, 34) for width in range(1, 33)]
    for size in [*sizes, *sizes[:3]]:
        x = normal(1, 1, *size)
        assert error(native.conv(layer, mge.Tensor(x)).numpy(), expected_of(layer, x)[0]) < 1e-6


def test_padding_with_other_values_is_left_to_megengine(native):
    layer = M.Conv2d(8, 8, 3, 1, 1, bias=True, padding_mode="reflect")
    x = normal(2, 8, 9, 9)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    expected, _ = reference.conv(padded, layer.weight.numpy(), (1, 1), (0, 0), (1, 1))
    found = native.conv(layer, mge.Tensor(x)).numpy()
    assert error(found, expected + layer.bias.numpy()) < 1e-5


def test_a_convolution_of_another_kind_is_left_to_itself(native):
    class Doubled(M.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, x = Doubled(8, 4, 3, 1, 1), normal(2, 8, 9, 9)
    expected = 2 * (expected_of(layer, x)[0] + layer.bias.numpy())
    assert error(native.conv(layer, mge.Tensor(x)).numpy(), expected) < 1e-5


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16"])
def test_images_of_other_number_types(native, dtype):
    """They become float32, as in MegEngine's own convolution."""
    layer, _ = layer_and_input("stem")
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 17, 19)).astype(dtype)
    found = native.conv(layer, mge.Tensor(x))
    assert found.dtype == np.float32
    assert error(found.numpy(), expected_of(layer, x)[0]) < 2e-6


@pytest.mark.parametrize("case", ["stem", "winograd", "32-groups"])
@pytest.mark.parametrize("factor", [0.5, 2])
def test_wrong_channels_are_an_error(native, case, factor):
    layer, x = layer_and_input(case)
    wrong = normal(1, int(layer.in_channels * factor), 24, 24)
    with pytest.raises(ValueError, match="as many channels as the map has"):
        native.conv(layer, mge.Tensor(wrong))


def test_no_images(native):
    layer, _ = layer_and_input("stem")
    assert native.conv(layer, mge.Tensor(normal(0, 3, 17, 19))).shape == (0, 16, 9, 10)


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("images", "inputs", "outputs"), [(1, 64, 10), (5, 33, 7), (16, 512, 100)])
def test_linear(native, images, inputs, outputs, bias):
    layer = M.Linear(inputs, outputs, bias=bias)
    weight = layer.weight.numpy().astype(np.float64)
    if bias:
        layer.bias._reset(normal(outputs, seed=2))
    x, dy = normal(images, inputs), normal(images, outputs, seed=3)
    parameters = [layer.weight, *([layer.bias] if bias else [])]
    found, gradients = differentiate(
        lambda tensor: native.linear(layer, tensor), dy, [x], parameters
    )
    expected = x @ weight.T + (layer.bias.numpy() if bias else 0)
    assert error(found, expected) < 2e-6
    for each, wanted in zip(gradients, (dy @ weight, dy.T @ x.astype(np.float64), dy.sum(0))):
        assert error(each, wanted) < 2e-6


def test_an_output_that_two_layers_use_gets_both_gradients(native):
    first, x = layer_and_input("basic")
    second, third = layer_and_input("basic")[0], layer_and_input("basic")[0]
    third.weight._reset(normal(*third.weight.shape, seed=5))
    manager = GradManager().attach([first.weight])
    results = []
    for convolve in (native.conv, lambda layer, tensor: layer(tensor)):
        with manager:
            middle = convolve(first, mge.Tensor(x))
            y = convolve(second, middle) + F.exp(-convolve(third, middle) / 99)
            manager.backward((y * y).mean())
        results.append(first.weight.grad.numpy())
        first.weight.grad = None
    assert error(*results) < 1e-5
