"""Networks of other frameworks, with their weights, compute the same logits here."""

from pathlib import Path

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.readers import read_weights
from official.vision.classification.readers.contents import View
from official.vision.classification.resnet.model import Bottleneck, ResNet
from official.vision.classification.zoo import ARCHS, Weights, fill, load_weights
from official.vision.classification.zoo.models import get_model
from official.vision.classification.zoo.names import (
    in_our_order,
    in_our_shapes,
    translate,
    with_our_norms,
)
from tests.oracles import files, fixtures, seeded

# Of the largest logit. Float32 itself costs up to 1e-6 of it, and a BN's epsilon of zero in place
# of 1e-5, the smallest mistake to be found, 5e-5.
TOLERANCE = 1e-5

# Fixtures by what they are from, and whose names that has.
SCHEMES = {
    "cifar": "cifar",
    "detectron2": "detectron2",
    "flax": "flax",
    "keras": "keras",
    "megengine": "torchvision",
    "mindcv": "mindcv",
    "mmpretrain": "mmpretrain",
    "pycls": "pycls",
    "timm": "torchvision",
    "torchvision": "torchvision",
    "transformers": "huggingface",
}


# timm's and torchvision's widest networks, of which the fixtures have one block in each stage.
SHORT = "_short"
WIDTHS = {f"resnext101_32x{width}d": width for width in (16, 32, 48)}


def scheme_of(name):
    return "timm_v2" if name.startswith("timm_resnetv2") else SCHEMES[name.split("_")[0]]


def build(name, fixture):
    if name.endswith(SHORT):
        width = WIDTHS[fixture.arch]
        layers = (1, 1, 1, 1)
        return ResNet(Bottleneck, layers, fixture.num_classes, groups=32, width_per_group=width)
    return get_model(fixture.arch, num_classes=fixture.num_classes)


def fill_from(name, fixture):
    """The project's network with a fixture's weights, given under the framework's own names."""
    translation = translate(seeded.tensors(fixture.shapes))
    assert translation.scheme == scheme_of(name)
    assert all(dropped.endswith(seeded.COUNTER) for dropped in translation.dropped)
    model = build(name, fixture)
    fill(model, Weights(Path(name), ours(translation)))
    model.eval()
    return model


def ours(translation):
    """A framework's tensors as this project's networks have them."""
    stored = {name: View(value) for name, value in translation.tensors.items()}
    stored = in_our_order(translation.scheme, stored)
    arrays = {name: tensor.to_numpy() for name, tensor in stored.items()}
    shaped = in_our_shapes(translation.scheme, arrays)
    return with_our_norms(translation.scheme, shaped)


@pytest.mark.parametrize("name", fixtures.names())
def test_logits_are_those_of_the_other_framework(name):
    fixture = fixtures.load(name)
    model = fill_from(name, fixture)
    assert len(fixture.logits) == 2
    for size, logits in fixture.logits.items():
        expected = np.array(logits)
        x = seeded.images(*fixtures.image_size(size), len(expected))
        found = model(mge.Tensor(x)).numpy()
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max(), size


def test_every_family_has_a_fixture_of_every_framework_that_publishes_it():
    made = {(scheme_of(name), fixtures.load(name).arch) for name in fixtures.names()}
    assert made >= {
        *(("torchvision", f"resnet{depth}") for depth in (18, 34, 50, 101)),
        *(("torchvision", name) for name in ("resnext50_32x4d", "resnext101_32x8d")),
        *(("torchvision", name) for name in ("wide_resnet50_2", "resnetv1c50", "resnetv1d50")),
        *(("huggingface", name) for name in ("resnet18", "resnet50")),
        *(("flax", name) for name in ("resnet18", "resnet50")),
        *(("keras", name) for name in ("resnetv1a50", "resnetv1a101", "resnetv1a152")),
        *(("pycls", name) for name in ("resnet50", "resnext50_32x4d")),
        *(("detectron2", name) for name in ("resnet18", "resnet50", "resnetv1a50")),
        *(("mmpretrain", name) for name in ("resnet18", "resnet50", "resnetv1c50")),
        *(("mmpretrain", name) for name in ("resnetv1d50", "resnetv1d101")),
        *(("mmpretrain", name) for name in ("resnet18_cifar", "resnet50_cifar")),
        *(("mindcv", name) for name in ("resnetv2_50", "resnetv2_101")),
        *(("cifar", name) for name in ("resnet20_cifar", "resnet56_cifar")),
    }


def test_every_network_has_a_fixture_of_whoever_published_it():
    """But CIFAR's deeper ones, whose blocks and stems are those of the others."""
    archs = {fixtures.load(name).arch for name in fixtures.names()}
    assert {*ARCHS} - archs == {
        *("resnet34_cifar", "resnet101_cifar", "resnet152_cifar"),
        *("resnet32_cifar", "resnet44_cifar", "resnet110_cifar"),
    }


# In files that are trees: what is before the names of their manifest, and the classes' number.
TREES = {"keras_3.h5": "keras", "keras_3.keras": "keras", "flax_model.msgpack": "flax"}


@pytest.mark.parametrize("file", TREES)
def test_a_tree_of_the_other_framework_comes_back_under_our_names(file):
    weights = load_weights(files.FOLDER / file)
    translation = translate(seeded.of_types(files.read_manifest()[file]))
    assert weights.scheme == translation.scheme == TREES[file]
    expected = ours(translation)
    assert weights.tensors.keys() == expected.keys() == weights.sources.keys()
    assert (weights.num_classes, weights.dropped, weights.remark) == (5, (), "")
    for name, value in expected.items():
        assert np.array_equal(weights.tensors[name], value), name
    assert weights.stride_first == file.startswith("keras")


# Narrow networks in the frameworks' own files: file -> whose names, and the network they are of.
FILES = {
    "mmpretrain_published.pth": ("mmpretrain", "resnetv1d50"),
    "mmpretrain_published_legacy.pth": ("mmpretrain", "resnetv1d50"),
    "mmpretrain_runner.pth": ("mmpretrain", "resnetv1d50"),
    "mindspore_plain.ckpt": ("mindcv", "resnetv2_50"),
    "mindspore_crc.ckpt": ("mindcv", "resnetv2_50"),
    "mindspore_split.ckpt": ("mindcv", "resnetv2_50"),
    "mindspore_split_crc.ckpt": ("mindcv", "resnetv2_50"),
    "timm.safetensors": ("torchvision", "resnetv1d50"),
    "torchvision_parallel.pth": ("torchvision", "resnet18"),
    "torchvision_training.pth": ("torchvision", "resnet18"),
    "cifar_legacy.th": ("cifar", "resnet20_cifar"),
}


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_the_other_framework_comes_back_under_our_names(file):
    scheme, arch = FILES[file]
    expected = seeded.of_types(files.read_manifest()[file])
    translation = translate(read_weights(files.FOLDER / file).tensors)
    assert translation.scheme == scheme
    assert {*translation.sources.values(), *translation.dropped} == {*expected}
    assert {*translation.tensors} <= {*get_model(arch).state_dict()}
    for name, source in translation.sources.items():
        assert translation.tensors[name].dtype == np.float32
        assert np.array_equal(translation.tensors[name], expected[source]), name
