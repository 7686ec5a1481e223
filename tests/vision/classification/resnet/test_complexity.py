import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import blocks, cifar, model, preact
from official.vision.classification.resnet.complexity import Cost, complexity, tensor_shapes
from tests.networks import FACTS


@pytest.fixture(autouse=True)
def without_drawing_weights(monkeypatch):
    """Which is what takes time in building a network; nothing here depends on them."""
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(M.init, name, lambda *args, **kwargs: None)


def build(name, **options):
    home = next(module for module in (model, cifar, preact) if hasattr(module, name))
    return getattr(home, name)(**options)


def count(network):
    return sum(int(np.prod(parameter.shape)) for parameter in network.parameters())


@pytest.mark.parametrize("name", FACTS)
def test_is_the_published_one(name):
    params, macs, flops = FACTS[name]
    network = build(name)
    cost = complexity(network, 32 if name.endswith("_cifar") else 224)
    assert cost.params == count(network) == params
    assert round(cost.macs / 1e9, 4 if macs < 0.5 else 3) == macs
    if flops is not None:
        assert round((cost.macs + cost.elementwise) / 1e9, 3) == flops


def test_follows_the_input_and_the_head():
    network = build("resnet50", num_classes=200)
    cost = complexity(network, 448)
    assert cost.params == count(network) == 23_917_832  # MMPreTrain's resnet50_8xb8_cub
    assert round(cost.macs / 1e9, 3) == 16.349
    assert round((cost.macs + cost.elementwise) / 1e9, 3) == 16.48
    network = build("resnet50_cifar", num_classes=100)
    cost = complexity(network, 32)
    assert cost.params == count(network) == 23_705_252  # MMPreTrain's resnet50_8xb16_cifar100
    assert round(cost.macs / 1e9, 3) == 1.298
    assert round((cost.macs + cost.elementwise) / 1e9, 3) == 1.308


def test_of_the_papers_form_of_v2():
    """As many parameters as timm's resnetv2_50, which has these layers in another order."""
    paper, mindcv = build("resnetv2_50", paper_form=True), build("resnetv2_50")
    cost, other = complexity(paper, 224), complexity(mindcv, 224)
    assert cost.params == count(paper) == 25_549_352
    assert cost.macs == other.macs
    # Two per element: BN of the four projections goes, and of the first unit, that one's ReLU too.
    without = 2 * (256 * 56**2 + 512 * 28**2 + 1024 * 14**2 + 2048 * 7**2) + 3 * 64 * 56**2
    assert cost.elementwise == other.elementwise - without + 3 * 2048 * 7**2


def test_pooling_counts_what_goes_in_and_what_an_odd_map_leaves():
    cost = Cost(8, 7, 10).sequence(blocks.HalvingAvgPool())
    assert (cost.elementwise, cost.channels, cost.height, cost.width) == (8 * 7 * 10, 8, 4, 5)
    cost = Cost(8, 7, 10).sequence(preact.SameMaxPool2d())
    assert (cost.elementwise, cost.channels, cost.height, cost.width) == (8 * 7 * 10, 8, 4, 5)
    cost = Cost(8, 7, 10).sequence(M.Identity())
    assert (cost.elementwise, cost.params) == (0, 0)


def test_branches_must_end_alike():
    with pytest.raises(ValueError, match=r"different shapes: \(8, 7, 7\) and \(8, 4, 4\)"):
        Cost(8, 7, 7).join(Cost(8, 4, 4))


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "resnetv2_50", "resnet20_cifar"])
def test_shapes_of_a_network_without_weights(name):
    tensors = dict(build(name, num_classes=3).named_tensors())
    found = tensor_shapes(lambda: build(name, num_classes=3))
    assert found == {key: tuple(value.shape) for key, value in tensors.items()}
