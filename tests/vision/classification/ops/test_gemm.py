import megengine as mge
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.ops.accelerate import attach, detach
from official.vision.classification.ops.gemm import GemmOps, filter_gradient
from official.vision.classification.resnet.model import Bottleneck, ResNet

# in, out, kernel, stride, padding, dilation, groups, height, width
SHAPES = [
    (3, 8, (7, 7), (2, 2), (3, 3), (1, 1), 1, 17, 19),
    (8, 8, (3, 3), (1, 1), (1, 1), (1, 1), 4, 9, 9),
    (32, 32, (3, 3), (2, 2), (1, 1), (1, 1), 32, 8, 7),
    (8, 16, (1, 1), (2, 2), (0, 0), (1, 1), 1, 9, 10),
    (4, 4, (3, 3), (1, 1), (2, 2), (2, 2), 1, 7, 7),
    (4, 6, (3, 1), (2, 1), (1, 0), (1, 1), 2, 6, 5),
]


def reference_filter_gradient(x, dout, kernel, stride, padding, dilation, groups):
    """The sum that defines it, in float64, one output pixel after another."""
    count, in_channels = x.shape[:2]
    out_channels, out_height, out_width = dout.shape[1:]
    pads = ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2)
    x = np.pad(x.astype(np.float64), pads).reshape(
        count,
        groups,
        in_channels // groups,
        *(size + 2 * pad for size, pad in zip(x.shape[2:], padding)),
    )
    dout = dout.astype(np.float64).reshape(count, groups, -1, out_height, out_width)
    result = np.zeros((groups, out_channels // groups, in_channels // groups, *kernel))
    for row in range(out_height):
        for column in range(out_width):
            top, left = row * stride[0], column * stride[1]
            window = x[
                :,
                :,
                :,
                top : top + dilation[0] * (kernel[0] - 1) + 1 : dilation[0],
                left : left + dilation[1] * (kernel[1] - 1) + 1 : dilation[1],
            ]
            result += np.einsum("ngo,ngikl->goikl", dout[:, :, :, row, column], window)
    return result


def layer_and_input(shape, bias=False, seed=0):
    in_channels, out_channels, kernel, stride, padding, dilation, groups, height, width = shape
    layer = M.Conv2d(
        in_channels, out_channels, kernel, stride, padding, dilation, groups, bias=bias
    )
    x = np.random.default_rng(seed).normal(size=(2, in_channels, height, width))
    return layer, x.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_filter_gradient_is_the_defining_sum(shape):
    layer, x = layer_and_input(shape)
    dout = np.random.default_rng(1).normal(size=layer(mge.Tensor(x)).shape).astype(np.float32)
    arguments = (shape[2], shape[3], shape[4], shape[5], shape[6])
    found = filter_gradient(x, dout, *arguments)
    expected = reference_filter_gradient(x, dout, *arguments)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def gradients(module, x, compute=None):
    x = mge.Tensor(x)
    manager = GradManager().attach([*module.parameters(), x])
    with manager:
        out = (compute or module)(x)
        manager.backward((out * out * out).sum())  # every output weighs differently
    found = [out.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in module.parameters())]
    for parameter in module.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_every_gradient_equal_stock(shape, bias):
    layer, x = layer_and_input(shape, bias)
    stock = gradients(layer, x)
    for found, expected in zip(gradients(layer, x, lambda x: GemmOps().conv(layer, x)), stock):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_images_need_no_gradient():
    layer, x = layer_and_input(SHAPES[0])
    found = []
    for convolve in (layer, lambda x: GemmOps().conv(layer, x)):
        manager = GradManager().attach(layer.parameters())
        with manager:
            manager.backward((convolve(mge.Tensor(x)) ** 3).sum())
        found.append(layer.weight.grad.numpy())
        layer.weight.grad = None
    assert np.allclose(*found, rtol=1e-4, atol=1e-2)


def test_other_padding_is_left_to_megengine():
    layer = M.Conv2d(3, 4, 3, 1, 1, padding_mode="reflect")
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 5)).astype(np.float32)
    stock = gradients(layer, x)
    for found, expected in zip(gradients(layer, x, lambda x: GemmOps().conv(layer, x)), stock):
        assert np.array_equal(found, expected)


def test_a_whole_network_trains_as_stock_does_and_comes_back(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 3, 32, 32)).astype(np.float32)
    network = ResNet(Bottleneck, (1, 1, 1, 1), num_classes=4)
    stock = gradients(network, x)
    calls = []
    conv = GemmOps.conv
    monkeypatch.setattr(GemmOps, "conv", lambda *args: calls.append(1) or conv(*args))
    fast = gradients(attach(network, GemmOps()), x)
    assert len(calls) == 17
    for found, expected in zip(fast, stock):
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max() + 1e-6
    gradients(detach(network), x)
    assert len(calls) == 17
