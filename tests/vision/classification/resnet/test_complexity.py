import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import blocks, cifar, model, preact
from official.vision.classification.resnet.complexity import Cost, complexity

# Parameters, multiply-adds of convolutions and the classifier (in units of 1e9), and the same with
# BN, ReLU and pooling as MMPreTrain's tables count them (None: not in a table), at 224 px or, for
# CIFAR's networks, 32 px.
FACTS = {
    "resnet18": (11_689_512, 1.814, 1.822),
    "resnet34": (21_797_672, 3.664, 3.676),
    "resnet50": (25_557_032, 4.089, 4.122),
    "resnet101": (44_549_160, 7.801, 7.849),
    "resnet152": (60_192_808, 11.514, 11.581),
    "resnext50_32x4d": (25_028_904, 4.230, None),
    "resnext101_32x8d": (88_791_336, 16.414, None),
    "wide_resnet50_2": (68_883_240, 11.398, 11.441),
    "wide_resnet101_2": (126_886_696, 22.753, 22.816),
    "resnetv1c50": (25_576_264, 4.329, 4.364),
    "resnetv1c101": (44_568_392, 8.041, 8.092),
    "resnetv1c152": (60_212_040, 11.753, 11.823),
    "resnetv1d50": (25_576_264, 4.329, 4.365),
    "resnetv1d101": (44_568_392, 8.041, 8.093),
    "resnetv1d152": (60_212_040, 11.753, 11.824),
    "resnetv2_50": (25_553_064, 4.089, None),
    "resnetv2_101": (44_545_192, 7.801, None),
    "resnet18_cifar": (11_173_962, 0.555, 0.557),
    "resnet34_cifar": (21_282_122, 1.159, 1.162),
    "resnet50_cifar": (23_520_842, 1.298, 1.308),
    "resnet101_cifar": (42_512_970, 2.510, 2.525),
    "resnet152_cifar": (58_156_618, 3.722, 3.743),
    # He et al., section 4.2 and Table 6.
    "resnet20_cifar": (269_722, 0.0406, None),
    "resnet32_cifar": (464_154, 0.0689, None),
    "resnet44_cifar": (658_586, 0.0972, None),
    "resnet56_cifar": (853_018, 0.1255, None),
    "resnet110_cifar": (1_727_962, 0.2529, None),
}


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
