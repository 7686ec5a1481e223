"""Native kernels under megengine.jit.trace, which records a function once and replays it."""

import megengine as mge
import megengine.functional as F
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.jit import trace
from megengine.optimizer import SGD

from official.vision.classification.ops.accelerate import attach
from official.vision.classification.resnet import cifar, model

from .values import error, normal

NETWORKS = {
    "cifar": lambda: cifar.CifarResNet(1, 3),
    "v1d": lambda: model.ResNet(
        model.Bottleneck, (1, 1, 1, 1), 3, stem="deep", avg_down=True, groups=2
    ),
}


def build(name, ops):
    mge.random.seed(0)
    return attach(NETWORKS[name](), ops)


@pytest.mark.parametrize("symbolic", [False, True], ids=["recorded", "symbolic"])
@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_of_any_size(native, name, symbolic):
    network = build(name, native)
    network.eval()
    traced = trace(symbolic=symbolic)(lambda images: network(images))
    for seed, shape in enumerate([(2, 16, 16)] * 3 + [(3, 16, 16), (2, 21, 17), (2, 16, 16)]):
        images = mge.Tensor(normal(shape[0], 3, *shape[1:], seed=seed))
        assert error(traced(images).numpy(), network(images).numpy()) < 1e-6


def train(network, sizes, symbolic=None):
    """Losses of one step for each (images, pixels), and the state after them."""
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
    for seed, (count, size) in enumerate(sizes):
        labels = np.random.default_rng(seed).integers(0, 3, count).astype(np.int32)
        images = normal(count, 3, size, size, seed=seed)
        losses.append(step(mge.Tensor(images), mge.Tensor(labels)).item())
    return losses, network.state_dict()


@pytest.mark.parametrize("symbolic", [False, True], ids=["recorded", "symbolic"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training(native, name, symbolic):
    """With batches of another size, as the last of an epoch is."""
    sizes = [(count, 48) for count in (4, 4, 4, 3, 6, 4)]
    expected, expected_state = train(build(name, native), sizes)
    found, state = train(build(name, native), sizes, symbolic)
    assert found == pytest.approx(expected, rel=1e-4)
    for key, value in expected_state.items():
        assert np.abs(state[key] - value).max() <= 1e-4 * max(1, np.abs(value).max()), key
