import megengine as mge
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import cifar
from official.vision.classification.resnet.model import resnet18
from tests.vision.classification.resnet.reference import (
    Reference,
    randomise_statistics,
    relative_difference,
)

DEPTHS = {f"resnet{depth}_cifar": depth for depth in (20, 32, 44, 56, 110, 18, 34, 50, 101, 152)}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth(name):
    network = getattr(cifar, name)()
    layers = [
        module
        for path, module in network.named_modules()
        if isinstance(module, (M.Conv2d, M.Linear)) and "downsample" not in path
    ]
    assert len(layers) == DEPTHS[name]
    assert network.fc.out_features == 10


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


class OptionAReference(Reference):
    """He et al.'s network for 32x32 images."""

    def shortcut(self, x, name, stride):
        if stride == 1:
            return x
        channels = x.shape[1]
        x = x[:, :, ::2, ::2]
        return np.pad(x, ((0, 0), (channels // 2, channels // 2), (0, 0), (0, 0)))


@pytest.mark.parametrize(
    ("name", "reference", "layers", "size"),
    [
        ("resnet20_cifar", OptionAReference, (3, 3, 3), (32, 32)),
        ("resnet20_cifar", OptionAReference, (3, 3, 3), (19, 16)),
        ("resnet18_cifar", Reference, (2, 2, 2, 2), (11, 16)),
        ("resnet50_cifar", Reference, (3, 4, 6, 3), (9, 8)),
    ],
)
def test_forward_equals_the_definition_in_float64(name, reference, layers, size):
    network = randomise_statistics(getattr(cifar, name)(num_classes=7))
    network.eval()
    x = np.random.default_rng(1).normal(size=(1, 3, *size)).astype(np.float32)
    expected = reference(network.state_dict())(x, layers)
    assert relative_difference(network(mge.Tensor(x)).numpy(), expected) < 1e-5


def test_state_dict_of_the_wide_form_has_the_names_of_resnet():
    cifar_state = cifar.resnet18_cifar(num_classes=1000).state_dict()
    state = resnet18().state_dict()
    assert {name: value.shape for name, value in cifar_state.items()} == {
        name: (64, 3, 3, 3) if name == "conv1.weight" else value.shape
        for name, value in state.items()
    }


@pytest.mark.parametrize("dilate", [(False, True), (True, True)])
def test_dilation_computes_the_strided_features_on_a_finer_grid(dilate):
    strided = randomise_statistics(cifar.CifarResNet(2))
    dilated = cifar.CifarResNet(2, replace_stride_with_dilation=dilate)
    dilated.load_state_dict(strided.state_dict())
    strided.eval(), dilated.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32))
    coarse = strided.extract_features(x)["res4"].numpy()
    fine = dilated.extract_features(x)["res4"].numpy()
    step = 2 ** sum(dilate)
    assert fine.shape[2] == step * coarse.shape[2]
    assert np.allclose(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-5)


def test_other_image_channels_and_any_size():
    for name in ("resnet20_cifar", "resnet18_cifar"):
        network = getattr(cifar, name)(num_classes=3, in_channels=1)
        network.eval()
        for size in ((1, 1), (5, 34)):
            logits = network(mge.Tensor(np.ones((2, 1, *size), np.float32))).numpy()
            assert logits.shape == (2, 3)
            assert np.isfinite(logits).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match="needs 2 elements, .* got \\(True, True, True\\)"):
        cifar.resnet20_cifar(replace_stride_with_dilation=[True, True, True])
    with pytest.raises(TypeError, match="stem"):
        cifar.resnet18_cifar(stem="deep")
