import dataclasses
from importlib import import_module

import pytest

from official.vision.classification import get_model, list_models
from official.vision.classification.errors import UsageError
from official.vision.classification.zoo import ARCHS, ROWS, arch_of
from official.vision.classification.zoo.models import image_size
from tests.networks import FACTS
from tests.oracles import published

ALL_ARCHS = sorted(FACTS)
CIFAR = [name for name in ALL_ARCHS if name.endswith("_cifar")]
V2 = ["resnetv2_101", "resnetv2_50"]  # which are rows as well
MEGENGINE_ROWS = """
    resnet101_fbaug_in1k resnet152_fbaug_in1k resnet18_naiveaug_in1k resnet34_naiveaug_in1k
    resnet50_fbaug_in1k resnext101_32x8d_fbaug_in1k resnext50_32x4d_fbaug_in1k
""".split()
ROW_NAMES = sorted(
    """
    resnet101_8xb16_cifar10 resnet101_8xb32_in1k resnet152_8xb16_cifar10 resnet152_8xb32_in1k
    resnet18_8xb16_cifar10 resnet18_8xb32_in1k resnet20_cifar_30e
    resnet34_8xb16_cifar10 resnet34_8xb32_in1k
    resnet50_8xb16_cifar10 resnet50_8xb16_cifar100 resnet50_8xb256-rsb-a1-600e_in1k
    resnet50_8xb256-rsb-a2-300e_in1k resnet50_8xb256-rsb-a3-100e_in1k resnet50_8xb32-fp16_in1k
    resnet50_8xb32_in1k resnet50_8xb8_cub resnetv1c101_8xb32_in1k resnetv1c152_8xb32_in1k
    resnetv1c50_8xb32_in1k resnetv1d101_8xb32_in1k resnetv1d152_8xb32_in1k resnetv1d50_8xb32_in1k
    wide-resnet101_3rdparty_8xb32_in1k wide-resnet50_3rdparty-timm_8xb32_in1k
    wide-resnet50_3rdparty_8xb32_in1k
""".split()
    + MEGENGINE_ROWS
)
TABLES = sorted(published.names())  # timm's and torchvision's, which have a dot


def test_all_names():
    assert list_models() == sorted(ALL_ARCHS + ROW_NAMES + TABLES)
    assert len(TABLES) == 110 and all("." in name for name in TABLES)
    assert sorted(ARCHS) == ALL_ARCHS


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("resnext50_*fbaug*", ["resnext50_32x4d_fbaug_in1k"]),
        ("*aug_in1k", MEGENGINE_ROWS),
        ("*_in1k", sorted([*TABLES, *(name for name in ROW_NAMES if name[-5:] == "_in1k")])),
        ("resnet50.a?_in1k", [f"resnet50.a{letter}_in1k" for letter in "123m"]),
        ("*.tv2_in1k", [name for name in TABLES if name.endswith(".tv2_in1k")]),
        ("*_cifar", CIFAR),
        ("resnetv2_*[01]", V2),
        ("*rsb-a[12]*", ["resnet50_8xb256-rsb-a1-600e_in1k", "resnet50_8xb256-rsb-a2-300e_in1k"]),
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
    without = [name for name in ALL_ARCHS if all(row.arch != name for row in ROWS)]
    assert {"resnet32_cifar", "resnet110_cifar"} <= {*without}
    assert list_models(pretrained=False) == without
    assert list_models(pretrained=True) == sorted({*ALL_ARCHS, *ROW_NAMES, *TABLES} - {*without})
    assert list_models("*_cifar", pretrained=True) == sorted({*CIFAR} - {*without})
    assert list_models("resnetv2_*[01]", True) == V2
    assert list_models("wide_resnet*_2", False) == []


def test_every_name_has_a_network():
    for name in ALL_ARCHS:
        assert arch_of(name) == name
        assert ARCHS[name].__name__ == name
        assert ARCHS[name] is getattr(import_module(ARCHS[name].__module__), name)
    for row in ROWS:
        assert arch_of(row.name) == row.arch


def test_sizes_of_images():
    assert {name for name in ARCHS if image_size(name) == 32} == {*CIFAR}
    assert {name for name in ARCHS if image_size(name) == 224} == {*ALL_ARCHS} - {*CIFAR}


def test_a_row_without_weights_has_its_own_classes():
    assert get_model("resnet18_8xb16_cifar10").fc.weight.shape == (10, 512)
    assert get_model("resnet50_8xb16_cifar100").fc.weight.shape == (100, 2048)
    assert get_model("resnet18_8xb16_cifar10", num_classes=3).fc.weight.shape == (3, 512)


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
    count = len(list_models())
    assert str(caught.value) == (
        f"unknown network 'vgg': there are {', '.join([*ARCHS][:3])} and {count - 3} more; "
        "list_models() and README.md name all"
    )


def test_a_name_that_is_a_network_and_a_row_is_told_once():
    with pytest.raises(UsageError) as caught:
        get_model("resnetv2_5")
    assert ": did you mean resnetv2_50, resnetv2_50_timm, " in str(caught.value)


def test_a_row_is_a_network_with_weights_of_its_own(row, mirror, pkl, random_state, same, known):
    mirror.offer(row, pkl(random_state))
    second = dataclasses.replace(row, name="resnet20_second", url=row.url.replace("_test_", "_2_"))
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
