"""Under megengine.jit.trace a network computes by MegEngine's own kernels, and says so."""

import logging

import megengine as mge
import megengine.functional as F
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.jit import trace
from megengine.optimizer import SGD

from official.vision.classification.ops.accelerate import attach
from official.vision.classification.ops.native import NativeOps
from official.vision.classification.ops.plain import PlainOps
from official.vision.classification.resnet import cifar, model, preact

from .values import error, normal

NETWORKS = {
    "cifar": lambda: cifar.CifarResNet(1, 3),
    "v1d": lambda: model.ResNet(
        model.Bottleneck, (1, 1, 1, 1), 3, stem="deep", avg_down=True, groups=2
    ),
    "v2": lambda: preact.PreActResNet((1, 1, 1, 1), 3),
}
SYMBOLIC = pytest.mark.parametrize("symbolic", [False, True], ids=["recorded", "symbolic"])


@pytest.fixture()
def fresh(kernels):
    """Native operations that nobody has traced yet."""
    return NativeOps(kernels)


def build(name, ops):
    mge.random.seed(0)
    return attach(NETWORKS[name](), ops)


@SYMBOLIC
@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation(fresh, caplog, name, symbolic):
    network, stock = build(name, fresh), build(name, PlainOps())
    network.eval()
    stock.eval()
    traced = trace(symbolic=symbolic)(lambda images: network(images))
    with caplog.at_level(logging.WARNING):
        for seed, count in enumerate((2, 2, 2, 3, 2)):
            images = mge.Tensor(normal(count, 3, 32, 32, seed=seed))
            found = traced(images).numpy()
            assert np.array_equal(found, stock(images).numpy())
            assert error(network(images).numpy(), found) < 1e-5  # not traced, native again
    (record,) = caplog.records
    assert record.getMessage() == (
        "megengine.jit.trace records MegEngine's kernels, not the native ones"
    )


def train(network, counts, symbolic=None):
    """Losses of a step with each number of images, and the state after them."""
    manager = GradManager().attach(network.parameters())
    optimizer = SGD(network.parameters(), lr=1e-3, momentum=0.9)

    def step(images, labels):
        with manager:
            loss = F.nn.cross_entropy(network(images), labels)
            manager.backward(loss)
        optimizer.step().clear_grad()
        return loss

    if symbolic is not None:
        step = trace(symbolic=symbolic)(step)
    losses = []
    for seed, count in enumerate(counts):
        labels = np.random.default_rng(seed).integers(0, 3, count).astype(np.int32)
        images = normal(count, 3, 32, 32, seed=seed)
        losses.append(step(mge.Tensor(images), mge.Tensor(labels)).item())
    return losses, network.state_dict()


@SYMBOLIC
def test_training(fresh, symbolic):
    """With batches of another size, as the last of an epoch is."""
    counts = (4, 4, 4, 3, 4)
    expected, expected_state = train(build("cifar", PlainOps()), counts)
    found, state = train(build("cifar", fresh), counts, symbolic)
    assert found == pytest.approx(expected, rel=1e-4)
    for key, value in expected_state.items():
        assert np.abs(state[key] - value).max() <= 1e-4 * max(1, np.abs(value).max()), key
