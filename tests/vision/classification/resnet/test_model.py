import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.resnet import model as resnet
from official.vision.classification.resnet.blocks import HalvingAvgPool
from official.vision.classification.resnet.complexity import complexity
from tests.vision.classification.resnet.reference import (
    Reference,
    randomise_statistics,
    relative_difference,
)

FORMS = {
    "basic": (resnet.BasicBlock, {}),
    "bottleneck": (resnet.Bottleneck, {}),
    "resnext": (resnet.Bottleneck, {"groups": 32, "width_per_group": 4}),
    "wide": (resnet.Bottleneck, {"width_per_group": 128}),
    "c": (resnet.Bottleneck, {"stem": "deep"}),
    "d": (resnet.Bottleneck, {"stem": "deep", "avg_down": True}),
    "basic-d": (resnet.BasicBlock, {"stem": "deep", "avg_down": True}),
    "small-images": (resnet.BasicBlock, {"stem": "3x3"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forward_equals_the_definition_in_float64(form):
    block, options = FORMS[form]
    layers = (1, 2, 1, 1)
    network = randomise_statistics(resnet.ResNet(block, layers, num_classes=7, **options))
    network.eval()
    # Oblong, and each stage halves maps of both parities: 19 and 16, 10 and 8, 5 and 4.
    size = (11, 16) if form == "small-images" else (75, 64)
    x = np.random.default_rng(1).normal(size=(2, 3, *size)).astype(np.float32)
    expected = Reference(network.state_dict())(x, layers)
    assert relative_difference(network(mge.Tensor(x)).numpy(), expected) < 1e-5


@pytest.mark.parametrize("name", ["resnetv1c50", "resnetv1d50"])
def test_variants_have_the_blocks_of_their_form(name):
    network = randomise_statistics(getattr(resnet, name)(num_classes=5))
    network.eval()
    x = np.random.default_rng(1).normal(size=(1, 3, 37, 40)).astype(np.float32)
    expected = Reference(network.state_dict())(x, (3, 4, 6, 3))
    assert relative_difference(network(mge.Tensor(x)).numpy(), expected) < 1e-5


def test_an_average_is_only_where_a_stride_is():
    network = resnet.ResNet(
        resnet.Bottleneck,
        (1, 1, 1, 1),
        stem="deep",
        avg_down=True,
        replace_stride_with_dilation=(False, True, False),
    )
    shortcuts = [
        stage[0].downsample
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4)
    ]
    assert all(len(shortcut) == 3 for shortcut in shortcuts)
    pooled = [isinstance(shortcut[0], HalvingAvgPool) for shortcut in shortcuts]
    assert pooled == [False, True, False, True]
    x = mge.Tensor(np.zeros((1, 3, 64, 64), np.float32))
    features = network.extract_features(x)
    assert [features[f"res{i}"].shape[2] for i in (2, 3, 4, 5)] == [16, 8, 8, 4]


@pytest.mark.parametrize("block", [resnet.BasicBlock, resnet.Bottleneck])
@pytest.mark.parametrize("dilate", [(False, False, True), (False, True, True)])
def test_dilation_computes_the_strided_features_on_a_finer_grid(block, dilate):
    """The à trous property: every second (fourth) pixel is what the strided network gives."""
    strided = randomise_statistics(resnet.ResNet(block, (1, 1, 2, 2)))
    dilated = resnet.ResNet(block, (1, 1, 2, 2), replace_stride_with_dilation=dilate)
    dilated.load_state_dict(strided.state_dict())
    strided.eval(), dilated.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32))
    coarse = strided.extract_features(x)["res5"].numpy()
    fine = dilated.extract_features(x)["res5"].numpy()
    step = 2 ** sum(dilate)
    assert fine.shape[2] == step * coarse.shape[2]
    assert np.allclose(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-5)


def test_features_by_name():
    network = resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1))
    x = mge.Tensor(np.zeros((2, 3, 64, 96), np.float32))
    shapes = {name: value.shape for name, value in network.extract_features(x).items()}
    assert shapes == {
        "stem": (2, 64, 16, 24),
        "res2": (2, 64, 16, 24),
        "res3": (2, 128, 8, 12),
        "res4": (2, 256, 4, 6),
        "res5": (2, 512, 2, 3),
    }
    (pooled,) = network.extract_feat(x)
    assert pooled.shape == (2, 512)
    assert np.allclose(network.fc(pooled).numpy(), network(x).numpy())


def test_zero_init_makes_every_block_the_identity_at_first():
    network = resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1), zero_init_residual=True)
    network.eval()
    x = mge.Tensor(np.random.default_rng(0).normal(size=(1, 256, 5, 5)).astype(np.float32))
    second = network.layer1[1]
    assert np.array_equal(second(x).numpy(), F.relu(x).numpy())
    first = resnet.ResNet(resnet.Bottleneck, (2, 1, 1, 1)).layer1[1]
    first.eval()
    assert not np.array_equal(first(x).numpy(), F.relu(x).numpy())


def test_initial_weights_have_the_variance_of_he_et_al():
    """Var = 2 / (outputs each input reaches), arXiv:1502.01852, eq. 14."""
    network = resnet.resnet18()
    weight = network.layer3[0].conv1.weight.numpy()  # 3x3, from 128 channels to 256
    assert abs(weight.std() / np.sqrt(2 / (9 * 256)) - 1) < 0.01
    assert abs(weight.mean()) < 1e-3
    head = network.fc.weight.numpy()
    assert np.abs(head).max() <= 1 / np.sqrt(512)
    assert np.abs(head).max() > 0.99 / np.sqrt(512)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_is_what_the_detectors_of_megengine_models_expect(name):
    """Their FPN, key point and segmentation models build and use a backbone in just this way."""
    norms = []

    def norm(channels):
        norms.append(channels)
        return M.BatchNorm2d(channels)

    backbone = getattr(resnet, name)(
        norm=norm, pretrained=False, replace_stride_with_dilation=[False, False, True]
    )
    del backbone.fc
    assert norms[0] == 64
    assert len(norms) == (20 if name == "resnet18" else 53)
    features = backbone.extract_features(mge.Tensor(np.zeros((1, 3, 64, 64), np.float32)))
    assert features["res5"].shape[2:] == features["res4"].shape[2:] == (4, 4)


def test_state_dict_has_the_names_and_shapes_of_megengine_models():
    state = resnet.resnext50_32x4d().state_dict()
    assert len(state) == 53 * 5 + 2  # convolutions with four BN tensors each, and the classifier
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["bn1.running_var"].shape == (64,)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert state["layer1.0.downsample.1.bias"].shape == (256,)
    assert state["layer4.2.conv2.weight"].shape == (32, 32, 32, 3, 3)
    assert state["layer4.2.bn3.weight"].shape == (2048,)
    assert state["fc.weight"].shape == (1000, 2048)


def test_state_dict_has_timms_names_where_the_stem_is_deep():
    c, d = (getattr(resnet, name)().state_dict() for name in ("resnetv1c50", "resnetv1d50"))
    for state in (c, d):
        stem = {name: state[name].shape for name in state if name.startswith("conv1.")}
        assert {name: shape for name, shape in stem.items() if len(shape) == 4} == {
            "conv1.0.weight": (32, 3, 3, 3),
            "conv1.3.weight": (32, 32, 3, 3),
            "conv1.6.weight": (64, 32, 3, 3),
        }
        assert stem["conv1.1.running_mean"] == stem["conv1.4.running_mean"] == (32,)
        assert state["bn1.weight"].shape == (64,)
        assert len(state) == 55 * 5 + 2  # two convolutions with BN more than ResNet-50
    widths = (256, 512, 1024, 2048)
    for stage, channels in enumerate(widths, 1):
        inner = 64 if stage == 1 else channels // 2
        shortcut = f"layer{stage}.0.downsample"
        assert c[f"{shortcut}.0.weight"].shape == (channels, inner, 1, 1)
        assert c[f"{shortcut}.1.weight"].shape == (channels,)
        assert d[f"{shortcut}.1.weight"].shape == (channels, inner, 1, 1)
        assert d[f"{shortcut}.2.weight"].shape == (channels,)
        assert f"{shortcut}.0.weight" not in d


@pytest.mark.parametrize("stem", ["7x7", "deep", "3x3"])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (33, 50)])
def test_other_image_channels_and_classes_at_any_size(stem, size):
    network = resnet.ResNet(
        resnet.BasicBlock, (1, 1, 1, 1), 3, in_channels=1, stem=stem, avg_down=True
    )
    network.eval()
    logits = network(mge.Tensor(np.ones((2, 1, *size), np.float32))).numpy()
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()
    last = network.extract_features(mge.Tensor(np.ones((2, 1, *size), np.float32)))["res5"]
    cost = complexity(network, *size, in_channels=1)
    halvings = 3 if stem == "3x3" else 5
    assert last.shape[2:] == tuple(-(-length // 2**halvings) for length in size)
    assert cost.channels == 3


def test_bad_arguments():
    with pytest.raises(ValueError, match="needs 3 elements, .* got \\(True,\\)"):
        resnet.resnet50(replace_stride_with_dilation=[True])
    with pytest.raises(ValueError, match="Bottleneck"):
        resnet.ResNet(resnet.BasicBlock, (1, 1, 1, 1), groups=2)
    with pytest.raises(ValueError, match="stem must be '7x7', '3x3', 'deep', .* got '5x5'"):
        resnet.resnet18(stem="5x5")
    with pytest.raises(ValueError, match="avg_down needs a stride of 1 or 2, got 3"):
        resnet.Bottleneck(64, 64, stride=3, avg_down=True)
