"""Native operations take any tensor, and theirs are tensors like any other."""

import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.ops.build import load_kernels
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps

from .values import differentiate, distinct, error, normal

PADDING = ((1, 1), (0, 1))


def layers():
    mge.random.seed(0)
    return {
        "stem": M.Conv2d(6, 16, 3, 2, 1),
        "winograd": M.Conv2d(36, 40, 3, 1, 1, bias=False),
        "groups": M.Conv2d(6, 12, 3, 1, 1, groups=3, bias=False),
        "norm": M.BatchNorm2d(6),
        "linear": M.Linear(6, 4),
    }


LAYERS = layers()
OPERATIONS = {
    "conv": lambda ops, x: ops.conv(LAYERS["stem"], x),
    "groups": lambda ops, x: ops.conv(LAYERS["groups"], x),
    "winograd": lambda ops, x: ops.conv(LAYERS["winograd"], F.concat([x] * 6, 1)),
    "norm": lambda ops, x: ops.norm(LAYERS["norm"], x, relu=True),
    "norm-add": lambda ops, x: ops.conv_norm(M.Identity(), LAYERS["norm"], x, x[:, ::-1]),
    "add": lambda ops, x: ops.add(x, x[:, ::-1], relu=True),
    "fork": lambda ops, x: ops.fork(x)[0] * 2 + ops.fork(x)[1],
    "max-pool": lambda ops, x: ops.max_pool(x, 3, 2, PADDING),
    "halve": lambda ops, x: ops.halve(x),
    "mean": lambda ops, x: ops.mean(x),
    "subsample": lambda ops, x: ops.subsample(x, 2, 1, 2),
    "linear": lambda ops, x: ops.linear(LAYERS["linear"], x[:, :, 1, 1]),
}
# How (8, 6, 24, 18) maps come from others without a copy.
VIEWS = {
    "as-it-is": ((8, 6, 24, 18), lambda x: x),
    "transposed": ((24, 8, 18, 6), lambda x: x.transpose(1, 3, 0, 2)),
    "channels-last": ((8, 24, 18, 6), lambda x: x.transpose(0, 3, 1, 2)),
    "every-second-pixel": ((8, 6, 48, 36), lambda x: x[:, :, ::2, 1::2]),
    "some-channels": ((8, 11, 24, 18), lambda x: x[:, 2:8]),
    "some-images": ((11, 6, 24, 18), lambda x: x[3:]),
    "turned-around": ((8, 6, 24, 18), lambda x: x[:, :, ::-1, ::-1]),
    "broadcast": ((8, 1, 1, 18), lambda x: F.broadcast_to(x, (8, 6, 24, 18))),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_inputs_of_any_layout(native, name, view):
    shape, look = VIEWS[view]
    operation = OPERATIONS[name]
    x = normal(*shape)

    def stock(x):
        return operation(PlainOps(), look(x) * 1)  # its pooling takes contiguous ones alone

    dy = normal(*stock(mge.Tensor(x)).shape, seed=1)
    if view == "broadcast" and name == "max-pool":
        dy[:] = 0  # MegEngine gives the gradient to each of equal values
    expected, (expected_dx,) = differentiate(stock, dy, [x])
    found, (dx,) = differentiate(lambda x: operation(native, look(x)), dy, [x])
    assert error(found, expected) < 2e-5
    assert np.abs(dx - expected_dx).max() <= 2e-5 * np.abs(expected_dx).max()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_output_gradients_of_any_layout(native, name, view):
    """As other functions after an operation hand them back."""
    operation = OPERATIONS[name]
    x = normal(8, 6, 24, 18)
    y = operation(native, mge.Tensor(x))
    axes = tuple(range(y.ndim))
    shuffle = {
        "transposed": lambda y: y.transpose(*axes[1:], 0),
        "channels-last": lambda y: y.transpose(0, *axes[2:], 1),
        "every-second-pixel": lambda y: y[..., ::2],
        "some-channels": lambda y: y[:, 1:-1],
        "some-images": lambda y: y[3:],
        "turned-around": lambda y: y[..., ::-1],
        "broadcast": lambda y: y.sum(axis=-1),
        "as-it-is": lambda y: y,
    }[view]
    dy = normal(*shuffle(y).shape, seed=1)
    results = [
        differentiate(lambda x, ops=ops: shuffle(operation(ops, x)), dy, [x])
        for ops in (PlainOps(), native)
    ]
    (expected, (expected_dx,)), (found, (dx,)) = results
    assert error(found, expected) < 2e-5
    assert error(dx, expected_dx) < 2e-5


@pytest.fixture()
def threaded(kernels):
    """By three threads, which divides nothing evenly."""
    yield NativeOps(load_kernels(3))
    load_kernels(kernels.threads)


@pytest.mark.parametrize("images", [1, 2, 8])
@pytest.mark.parametrize("name", OPERATIONS)
def test_several_threads(threaded, name, images):
    operation = OPERATIONS[name]
    x = distinct(images, 6, 24, 18) / 1000
    dy = normal(*operation(PlainOps(), mge.Tensor(x)).shape, seed=1)
    (expected, (expected_dx,)), (found, (dx,)), again = (
        differentiate(lambda x, ops=ops: operation(ops, x), dy, [x])
        for ops in (PlainOps(), threaded, threaded)
    )
    assert error(found, expected) < 2e-5
    assert error(dx, expected_dx) < 2e-5
    assert np.array_equal(again[0], found)
    assert np.array_equal(again[1][0], dx)


USES = {
    "numpy": lambda y: y,
    "elements": F.exp,
    "sum": lambda y: y.sum(axis=1),
    "reshape": lambda y: y.reshape(2, -1),
    "flatten": lambda y: F.flatten(y, 1),
    "slice": lambda y: y[:, 1:7:2, 1:],
    "index": lambda y: y[1, 3, 2, 1],
    "transpose": lambda y: y.transpose(3, 1, 0, 2),
    "concat": lambda y: F.concat([y, y * 2], axis=1),
    "split": lambda y: F.split(y, 2, axis=1)[1],
    "convolution": lambda y: F.conv2d(y, mge.Tensor(normal(4, 16, 3, 3, seed=9))),
    "pooling": lambda y: F.avg_pool2d(y, 2, 2),
    "matmul": lambda y: F.matmul(y, y.transpose(0, 1, 3, 2)),
    "broadcast": lambda y: y + mge.Tensor(normal(16, 1, 1, seed=9)),
    "type": lambda y: y.astype("float16").astype("float32"),
    "copy": lambda y: mge.Tensor(y) + 0,
    "detach": lambda y: y.detach() * 2,
}


@pytest.mark.parametrize("use", USES)
def test_outputs_in_megengine_functions(native, use):
    """The values lie in memory with channels last; every function must see them in their places."""
    conv = M.Conv2d(3, 16, 3, 2, 1)
    x = mge.Tensor(normal(2, 3, 9, 11))
    expected = USES[use](conv(x)).numpy()
    assert (
        error(USES[use](native.conv(conv, x)).numpy(), expected) < 2e-3 if use == "type" else 1e-5
    )


def test_outputs_changed_in_place(native):
    conv, x = M.Conv2d(3, 16, 3, 2, 1), mge.Tensor(normal(2, 3, 9, 11))
    found, expected = native.conv(conv, x), conv(x)
    for y in (found, expected):
        y[:, 2:4, ::2] = 7
        y *= 2
    assert error(found.numpy(), expected.numpy()) < 1e-5


def test_an_attached_gradient_hook_of_the_middle(native):
    """A tensor in the middle may be attached, too (saliency)."""
    conv, x = M.Conv2d(3, 16, 3, 2, 1), mge.Tensor(normal(2, 3, 9, 11))
    dy = mge.Tensor(normal(2, 16, 5, 6, seed=1))
    found = []
    for ops in (PlainOps(), native):
        manager = GradManager().attach([x])
        with manager:
            y = ops.conv(conv, x)
            manager.attach([y])
            manager.backward(ops.add(y, y * y, relu=True), dy)
        found.append((x.grad.numpy(), y.grad.numpy()))
        x.grad = None
    for one, other in zip(*found):
        assert error(one, other) < 1e-5
