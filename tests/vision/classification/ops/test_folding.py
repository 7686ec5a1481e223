"""Filters and biases against the definition of batch normalisation in float64."""

import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.ops.folding import (
    FoldingOps,
    computing_by,
    folded,
    scale_and_shift,
)
from official.vision.classification.ops.plain import Layer, PlainOps
from official.vision.classification.resnet.model import resnet18


def filled(module, seed=0):
    """Statistics of very different sizes, as trained networks have them."""
    random = np.random.default_rng(seed)
    for tensor in (module.weight, module.bias, module.running_mean):
        tensor._reset(random.normal(0, 3, tensor.shape).astype(np.float32))
    variance = 10.0 ** random.uniform(-9, 4, module.running_var.shape)
    module.running_var._reset(variance.astype(np.float32))
    return module


def in_float64(*tensors):
    return [tensor.numpy().astype(np.float64).ravel() for tensor in tensors]


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [M.BatchNorm2d, M.SyncBatchNorm])
def test_a_convolution_with_the_normalisation_after_it(groups, bias, kind):
    conv = M.Conv2d(8, 12, 3, bias=bias, groups=groups)
    norm = filled(kind(12, eps=1e-3))
    if bias:
        conv.bias._reset(np.arange(12, dtype=np.float32).reshape(1, 12, 1, 1))
    weight, shift = folded(conv, norm)
    gamma, beta, mean, variance = in_float64(
        norm.weight, norm.bias, norm.running_mean, norm.running_var
    )
    start = np.arange(12.0) if bias else np.zeros(12)
    expected = gamma * (start - mean) / np.sqrt(variance + 1e-3) + beta
    assert weight.shape == tuple(conv.weight.shape)
    assert (weight.dtype, shift.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(shift, expected, rtol=1e-6)
    filters = conv.weight.numpy().astype(np.float64).reshape(12, -1)
    expected = filters * (gamma / np.sqrt(variance + 1e-3))[:, None]
    assert np.array_equal(weight.reshape(12, -1), expected.astype(np.float32))


def test_scale_and_shift_are_not_rounded():
    norm = filled(M.BatchNorm2d(7))
    gamma, beta, mean, variance = in_float64(
        norm.weight, norm.bias, norm.running_mean, norm.running_var
    )
    scale, shift = scale_and_shift(norm)
    np.testing.assert_allclose(scale, gamma / np.sqrt(variance + norm.eps), rtol=1e-14)
    np.testing.assert_allclose(shift, beta - mean * scale, rtol=1e-14)


@pytest.mark.parametrize(
    "norm",
    [
        M.GroupNorm(2, 4),
        M.Identity(),
        M.BatchNorm2d(4, affine=False),
        M.BatchNorm2d(4, track_running_stats=False),
    ],
    ids=["group", "none", "plain", "batch-statistics"],
)
def test_other_normalisations_are_refused(norm):
    with pytest.raises(ValueError, match="cannot be folded"):
        scale_and_shift(norm)


def test_the_network_computes_as_before_afterwards():
    class Other(PlainOps):
        pass

    model, other, ours = resnet18(num_classes=2), Other(), FoldingOps()
    for layer in model.modules():
        if isinstance(layer, Layer):
            layer.ops = other
    model.train()
    with pytest.raises(KeyError), computing_by(model, ours):
        assert model.layer1[0].ops is ours
        assert not model.layer1[0].bn1.training
        raise KeyError
    assert model.layer1[0].ops is other
    assert model.training
    assert model.layer1[0].bn1.training
