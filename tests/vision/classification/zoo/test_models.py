import dataclasses

import pytest

from official.vision.classification import get_model, list_models
from official.vision.classification.errors import UsageError
from official.vision.classification.resnet import cifar, model
from official.vision.classification.zoo import ARCHS, CARDS, arch_of

ALL_ARCHS = """
    resnet101 resnet110_cifar resnet152 resnet18 resnet20_cifar resnet32_cifar resnet34
    resnet44_cifar resnet50 resnet56_cifar resnext101_32x8d resnext50_32x4d
    wide_resnet101_2 wide_resnet50_2
""".split()
WITH_WEIGHTS = """
    resnet101 resnet152 resnet18 resnet34 resnet50 resnext101_32x8d resnext50_32x4d
""".split()
ROWS = """
    resnet101_fbaug_in1k resnet152_fbaug_in1k resnet18_naiveaug_in1k resnet34_naiveaug_in1k
    resnet50_fbaug_in1k resnext101_32x8d_fbaug_in1k resnext50_32x4d_fbaug_in1k
""".split()


def test_all_names():
    assert list_models() == sorted(ALL_ARCHS + ROWS)
    assert sorted(ARCHS) == ALL_ARCHS


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnext50*", ["resnext50_32x4d", "resnext50_32x4d_fbaug_in1k"]),
        ("*_in1k", ROWS),
        ("wide_resnet?01_2", ["wide_resnet101_2"]),
        ("resnet[12]8", ["resnet18"]),
        ("resnet18", ["resnet18"]),
        ("ResNet18", []),
        ("", []),
        ("no_such*", []),
    ],
)
def test_patterns(pattern, names):
    assert list_models(pattern) == names


def test_with_and_without_weights():
    assert list_models(pretrained=True) == sorted(WITH_WEIGHTS + ROWS)
    assert list_models(pretrained=False) == sorted(set(ALL_ARCHS) - set(WITH_WEIGHTS))
    assert list_models("*_cifar", pretrained=True) == []
    assert list_models("wide*", False) == ["wide_resnet101_2", "wide_resnet50_2"]


def test_every_name_has_a_network():
    for name in ALL_ARCHS:
        assert arch_of(name) == name
        assert ARCHS[name] is getattr(cifar if name.endswith("_cifar") else model, name)
    for card in CARDS:
        assert arch_of(card.name) == card.arch


def test_get_model_passes_arguments_on():
    built = get_model("resnet20_cifar", num_classes=3, in_channels=1)
    assert built.fc.weight.shape == (3, 64)
    assert built.conv1.weight.shape == (16, 1, 3, 3)
    with pytest.raises(TypeError, match="no_such_argument"):
        get_model("resnet20_cifar", no_such_argument=1)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet5", "resnet50"),
        ("ResNet18", "resnet18"),
        ("resnext50", "resnext50_32x4d"),
        ("resnet50_fbaug", "resnet50_fbaug_in1k"),
        ("resnet20", "resnet20_cifar"),
    ],
)
@pytest.mark.parametrize("function", [arch_of, get_model])
def test_unknown_names_with_the_nearest(function, name, near):
    with pytest.raises(UsageError) as caught:
        function(name)
    start, _, rest = str(caught.value).partition("did you mean ")
    assert start == f"unknown network {name!r}: "
    assert near in rest.rstrip("?").split(", ")


def test_an_unknown_name_near_to_none():
    with pytest.raises(UsageError) as caught:
        get_model("vgg")
    assert str(caught.value).startswith("unknown network 'vgg': there are resnet101, ")
    assert all(name in str(caught.value) for name in ALL_ARCHS)


def test_a_row_is_a_network_with_weights_of_its_own(card, mirror, pkl, random_state, same, known):
    mirror.offer(card, pkl(random_state))
    second = dataclasses.replace(
        card, name="resnet20_second", url=card.url.replace("_test_", "_2_")
    )
    others = {name: value + 1 for name, value in random_state.items()}
    known(second)
    mirror.offer(second, pkl(others))
    assert arch_of("resnet20_second") == "resnet20_cifar"
    assert "resnet20_second" in list_models(pretrained=True)
    assert same(get_model("resnet20_second", pretrained=True), others)
    assert same(get_model("resnet20_cifar", pretrained="resnet20_second"), others)
    assert same(get_model("resnet20_cifar", pretrained=True), random_state)  # the first
    assert same(get_model("resnet20_second", pretrained="resnet20_cifar_test"), random_state)
    assert len(mirror.requests) == 2
    assert not same(get_model("resnet20_second"), others)
    assert len(mirror.requests) == 2
