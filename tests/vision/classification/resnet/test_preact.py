import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.resnet import preact
from tests.vision.classification.resnet.reference import (
    MindCVReference,
    PaperReference,
    max_pool,
    randomise_statistics,
    relative_difference,
    relu,
    same_padding,
)

BOTH_FORMS = pytest.mark.parametrize("paper_form", [False, True], ids=["mindcv", "paper"])


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@BOTH_FORMS
@pytest.mark.parametrize("size", [(47, 66), (64, 61)])  # the max-pool gets 24x33 and 32x31
def test_forward_equals_the_definition_in_float64(paper_form, size):
    layers = (2, 1, 2, 1)
    network = randomise_statistics(preact.PreActResNet(layers, 7, paper_form=paper_form))
    network.eval()
    x = images(2, 3, *size, seed=1)
    reference = PaperReference if paper_form else MindCVReference
    expected = reference(network.state_dict())(x, layers)
    assert relative_difference(network(mge.Tensor(x)).numpy(), expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "layers"), [("resnetv2_50", (3, 4, 6, 3)), ("resnetv2_101", (3, 4, 23, 3))]
)
def test_variants_are_mindcvs_form_unless_the_papers_is_asked_for(name, layers):
    network = randomise_statistics(getattr(preact, name)(num_classes=5))
    network.eval()
    x = images(1, 3, 34, 33)
    expected = MindCVReference(network.state_dict())(x, layers)
    assert relative_difference(network(mge.Tensor(x)).numpy(), expected) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (7, 7), (8, 5), (5, 8), (1, 1), (2, 3), (112, 56)])
def test_same_max_pool(size):
    pool = preact.SameMaxPool2d()
    x = mge.Tensor(images(2, 3, *size) - 5)  # all negative: zeros in the padding would show
    with GradManager().attach([x]) as manager:
        out = pool(x)
        weight = images(*out.shape, seed=1)
        manager.backward((out * mge.Tensor(weight)).sum())
    padding = [same_padding(length) for length in size]
    assert np.array_equal(out.numpy(), max_pool(x.numpy(), padding).astype(np.float32))
    gradient = np.zeros(x.shape)
    (top, _), (left, _) = padding
    for n, c, i, j in np.ndindex(*out.shape):
        row, column = max(2 * i - top, 0), max(2 * j - left, 0)
        window = x.numpy()[n, c, row : 2 * i - top + 3, column : 2 * j - left + 3]
        down, right = np.unravel_index(window.argmax(), window.shape)
        gradient[n, c, row + down, column + right] += weight[n, c, i, j]
    assert np.allclose(x.grad.numpy(), gradient, atol=1e-5)


def test_same_padding_is_on_the_far_side_of_an_even_map():
    """By hand: windows of 0 1 2 3 start at 0 and 2; of 0 1 2 3 4 at -1, 1 and 3."""
    row = np.arange(5, dtype=np.float32)
    pool = preact.SameMaxPool2d()
    for length, expected in ((4, [2, 3]), (5, [1, 3, 4])):
        found = pool(mge.Tensor(row[None, None, None, :length])).numpy().ravel()
        assert found.tolist() == expected


def test_names_and_shapes_are_mindcvs_in_torchvisions_words():
    state = preact.resnetv2_50().state_dict()
    assert len(state) == 267  # of the published file
    assert state["bn1.weight"].shape == (64,)
    assert state["layer1.0.bn1.weight"].shape == (64,)
    assert state["layer2.0.bn1.weight"].shape == (256,)
    assert state["layer2.0.conv2.weight"].shape == (128, 128, 3, 3)
    assert state["layer2.0.bn3.running_var"].shape == (128,)
    assert state["layer2.0.downsample.0.weight"].shape == (512, 256, 1, 1)
    assert state["layer2.0.downsample.1.running_mean"].shape == (512,)
    assert state["fc.weight"].shape == (1000, 2048)


def test_names_of_the_papers_form():
    paper = preact.resnetv2_50(paper_form=True).state_dict()
    mindcv = preact.resnetv2_50().state_dict()
    parts = ("bias", "running_mean", "running_var", "weight")
    added = {f"norm.{part}" for part in parts}
    gone = {f"layer1.0.bn1.{part}" for part in parts}
    gone |= {f"layer{stage}.0.downsample.1.{part}" for stage in (1, 2, 3, 4) for part in parts}
    assert set(paper) == (set(mindcv) - gone) | added
    assert paper["norm.weight"].shape == (2048,)


@BOTH_FORMS
def test_features_by_name(paper_form):
    network = randomise_statistics(preact.PreActResNet((1, 1, 1, 1), 4, paper_form=paper_form))
    network.eval()
    x = mge.Tensor(images(2, 3, 64, 96))
    features = network.extract_features(x)
    assert {name: value.shape for name, value in features.items()} == {
        "stem": (2, 64, 16, 24),
        "res2": (2, 256, 16, 24),
        "res3": (2, 512, 8, 12),
        "res4": (2, 1024, 4, 6),
        "res5": (2, 2048, 2, 3),
    }
    activated = {name: bool((value.numpy() >= 0).all()) for name, value in features.items()}
    assert activated == {
        "stem": True,
        "res2": False,
        "res3": False,
        "res4": False,
        "res5": paper_form,
    }
    (pooled,) = network.extract_feat(x)
    assert np.allclose(pooled.numpy(), features["res5"].numpy().mean((2, 3)), atol=1e-5)
    assert np.allclose(network.fc(pooled).numpy(), network(x).numpy())


@BOTH_FORMS
@pytest.mark.parametrize("dilate", [(False, False, True), (False, True, True)])
def test_dilation_computes_the_strided_features_on_a_finer_grid(paper_form, dilate):
    strided = randomise_statistics(preact.PreActResNet((1, 1, 2, 2), paper_form=paper_form))
    dilated = preact.PreActResNet(
        (1, 1, 2, 2), replace_stride_with_dilation=dilate, paper_form=paper_form
    )
    dilated.load_state_dict(strided.state_dict())
    strided.eval(), dilated.eval()
    x = mge.Tensor(images(1, 3, 64, 64))
    coarse = strided.extract_features(x)["res5"].numpy()
    fine = dilated.extract_features(x)["res5"].numpy()
    step = 2 ** sum(dilate)
    assert fine.shape[2] == step * coarse.shape[2]
    assert np.allclose(fine[:, :, ::step, ::step], coarse, rtol=1e-4, atol=1e-4)


@BOTH_FORMS
def test_zero_init_makes_every_block_its_shortcut_at_first(paper_form):
    network = preact.PreActResNet((2, 1, 1, 1), zero_init_residual=True, paper_form=paper_form)
    network.eval()
    x = images(1, 256, 5, 5)
    assert np.array_equal(network.layer1[1](mge.Tensor(x)).numpy(), x)
    first = network.layer2[0]
    found = first(mge.Tensor(x)).numpy()
    expected = first.downsample(mge.Tensor(relu(x) / np.float32(np.sqrt(1 + 1e-5)))).numpy()
    assert np.allclose(found, expected, atol=1e-4)
    usual = preact.PreActResNet((2, 1, 1, 1), paper_form=paper_form).layer1[1]
    usual.eval()
    assert not np.allclose(usual(mge.Tensor(x)).numpy(), x, atol=0.01)


def test_block_with_groups_and_width():
    """The middle convolution of ResNeXt's form sees its own group only."""
    block = preact.PreActBottleneck(64, 64, groups=32, base_width=4)
    assert block.conv2.weight.shape == (32, 4, 4, 3, 3)
    assert block.conv3.weight.shape == (256, 128, 1, 1)


@BOTH_FORMS
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (33, 50)])
def test_other_image_channels_and_classes_at_any_size(paper_form, size):
    network = preact.PreActResNet((1, 1, 1, 1), 3, in_channels=1, paper_form=paper_form)
    network.eval()
    logits = network(mge.Tensor(np.ones((2, 1, *size), np.float32))).numpy()
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


@BOTH_FORMS
def test_every_normalisation_is_the_callers(paper_form):
    class OwnNorm(M.BatchNorm2d):
        pass

    network = preact.PreActResNet((1, 1, 1, 1), norm=OwnNorm, paper_form=paper_form)
    norms = [module for module in network.modules() if isinstance(module, M.BatchNorm2d)]
    assert all(isinstance(module, OwnNorm) for module in norms)
    # Stem; three in each block, but for the paper's first; projections or the last one.
    assert len(norms) == (1 + 11 + 1 if paper_form else 1 + 12 + 4)


def test_bad_arguments():
    with pytest.raises(ValueError, match="needs 3 elements"):
        preact.resnetv2_50(replace_stride_with_dilation=[True])
    with pytest.raises(TypeError, match="stem"):
        preact.resnetv2_50(stem="deep")


def test_the_stem_is_activated_before_the_max_pool():
    network = preact.PreActResNet((1, 1, 1, 1))
    network.bn1.bias._reset(np.full(network.bn1.bias.shape, -100, np.float32))
    network.eval()
    stem = network.extract_features(mge.Tensor(images(1, 3, 32, 32)))["stem"]
    assert np.array_equal(stem.numpy(), F.zeros_like(stem).numpy())


def in_timms_form(state):
    """The paper's form's tensors by the names of timm's: the stem's BN is the first unit's."""
    return {
        name.replace("bn1.", "layer1.0.bn1.", 1) if name.startswith("bn1.") else name: value
        for name, value in state.items()
    }


@pytest.mark.parametrize("size", [(47, 66), (64, 61)])
def test_timms_form_is_the_papers_unless_a_scale_of_the_first_norm_is_negative(size):
    """A max-pool and a growing function may be exchanged, a max-pool and a falling one not."""
    layers = (2, 1, 2, 1)
    paper = randomise_statistics(preact.PreActResNet(layers, 7, paper_form=True))
    timm = preact.TimmPreActResNet(preact.PaperPreActBottleneck, layers, 7)
    x = images(2, 3, *size, seed=1)
    for sign in (1, -1):
        state = {name: np.array(value) for name, value in paper.state_dict().items()}
        state["bn1.weight"] = np.abs(state["bn1.weight"])
        state["bn1.weight"].reshape(-1)[::4] *= sign
        paper.load_state_dict(state)
        timm.load_state_dict(in_timms_form(state))
        paper.eval(), timm.eval()
        expected = PaperReference(paper.state_dict())(x, layers)
        assert relative_difference(paper(mge.Tensor(x)).numpy(), expected) < 1e-5
        difference = relative_difference(timm(mge.Tensor(x)).numpy(), expected)
        assert difference < 1e-5 if sign > 0 else difference > 1e-2


def test_timms_form_takes_the_arguments_of_the_others():
    network = preact.resnetv2_18d(
        num_classes=5,
        in_channels=1,
        zero_init_residual=True,
        replace_stride_with_dilation=(False, True, True),
        drop_path=0.1,
    )
    x = mge.Tensor(images(2, 1, 64, 64))
    network.eval()
    features = network.extract_features(x)
    assert list(features) == ["stem", "res2", "res3", "res4", "res5"]
    assert [value.shape[1:] for value in features.values()] == [
        *((64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 8, 8), (512, 8, 8))
    ]
    assert features["stem"].numpy().min() < 0  # nothing has activated it
    assert features["res5"].numpy().min() == 0
    assert network(x).shape == (2, 5)
    (feature,) = network.extract_feat(x)
    assert np.allclose(feature.numpy(), features["res5"].numpy().mean((2, 3)), atol=1e-5)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for unit in layer:
            assert not unit.last_layer.weight.numpy().any()
    network.train()
    assert network(x).shape == (2, 5)
    with pytest.raises(ValueError, match="max-pool"):
        preact.TimmPreActResNet(preact.PreActBasicBlock, (1, 1, 1, 1), stem="3x3")
    with pytest.raises(ValueError, match="no groups"):
        preact.PreActBasicBlock(64, 64, groups=2)


def test_a_basic_unit_is_what_it_says():
    """BN, ReLU, 3x3, BN, ReLU, 3x3, and a shortcut of the input, or of what is activated."""
    x = images(2, 8, 9, 7)
    for out_channels, stride in ((8, 1), (16, 2)):
        unit = randomise_statistics(preact.PreActBasicBlock(8, out_channels, stride))
        unit.eval()
        activated = relu(unit.bn1(mge.Tensor(x)).numpy())
        inner = relu(unit.bn2(unit.conv1(mge.Tensor(activated))).numpy())
        branch = unit.conv2(mge.Tensor(inner)).numpy()
        shortcut = x if stride == 1 else unit.downsample(mge.Tensor(activated)).numpy()
        assert np.allclose(unit(mge.Tensor(x)).numpy(), branch + shortcut, atol=1e-5)
