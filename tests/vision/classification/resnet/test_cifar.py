import megengine as mge
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import cifar
from official.vision.classification.resnet.complexity import complexity

# He et al., section 4.2 and Table 6: depth, parameters, multiply-adds in millions at 32 px.
FACTS = {
    "resnet20_cifar": (20, 269_722, 40.6),
    "resnet32_cifar": (32, 464_154, 68.9),
    "resnet44_cifar": (44, 658_586, 97.2),
    "resnet56_cifar": (56, 853_018, 125.5),
    "resnet110_cifar": (110, 1_727_962, 252.9),
}


@pytest.mark.parametrize("name", FACTS)
def test_depth_and_complexity_are_the_papers(name):
    depth, params, macs = FACTS[name]
    network = getattr(cifar, name)()
    layers = [m for m in network.modules() if isinstance(m, (M.Conv2d, M.Linear))]
    assert len(layers) == depth
    cost = complexity(network, 32)
    assert cost.params == params
    assert sum(int(np.prod(p.shape)) for p in network.parameters()) == params
    assert round(cost.macs / 1e6, 1) == macs


@pytest.mark.parametrize("size", [8, 7])
def test_shortcut_takes_every_second_pixel_and_pads_channels_on_both_sides(size):
    block = cifar.CifarBlock(16, 32, stride=2)
    x = np.random.default_rng(0).normal(size=(2, 16, size, size)).astype(np.float32)
    expected = np.zeros((2, 32, (size + 1) // 2, (size + 1) // 2), np.float32)
    expected[:, 8:24] = x[:, :, ::2, ::2]
    assert np.array_equal(block.shortcut(mge.Tensor(x)).numpy(), expected)


def test_shortcut_within_a_stage_is_the_identity():
    block = cifar.CifarBlock(16, 16)
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 16, 5, 5)).astype(np.float32))
    assert np.array_equal(block.shortcut(x).numpy(), x.numpy())


def test_a_block_adds_its_branch_to_the_shortcut():
    block = cifar.CifarBlock(16, 32, stride=2)
    block.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 16, 8, 8)).astype(np.float32))
    branch = block.bn2(block.conv2(mge.functional.relu(block.bn1(block.conv1(x))))).numpy()
    expected = np.maximum(branch + block.shortcut(x).numpy(), 0)
    assert np.allclose(block(x).numpy(), expected)


def test_features_and_logits():
    network = cifar.resnet20_cifar(num_classes=5)
    network.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    shapes = {name: value.shape for name, value in network.extract_features(x).items()}
    assert shapes == {
        "stem": (2, 16, 32, 32),
        "res2": (2, 16, 32, 32),
        "res3": (2, 32, 16, 16),
        "res4": (2, 64, 8, 8),
    }
    (pooled,) = network.extract_feat(x)
    assert np.allclose(pooled.numpy(), network.extract_features(x)["res4"].numpy().mean((2, 3)))
    assert network(x).shape == (2, 5)
