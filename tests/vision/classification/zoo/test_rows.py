"""The published rows, against the facts in ``published_rows.txt``, typed from the publishers'.

``test_tables.py`` is about timm's and torchvision's.
"""

import re
from pathlib import Path

import pytest

from official.vision.classification.preprocess import Preprocess
from official.vision.classification.zoo import ARCHS, default_row
from official.vision.classification.zoo import ROWS as ALL
from official.vision.classification.zoo.classes import dataset_classes
from official.vision.classification.zoo.rows import BY_NAME, best_row
from official.vision.classification.zoo.rows.own import OWN
from tests.networks import cost_of

# What the projects that this one answers to have published; test_shipped.py is about our own.
ROWS = [row for row in ALL if row.source in ("MegEngine/Models", "MMPreTrain", "MindCV")]
RECIPES = Path(__file__).resolve().parents[4] / "official" / "recipes"
CLASSES = {"ImageNet-1k": 1000, "CIFAR-10": 10, "CIFAR-100": 100, "CUB-200-2011": 200}
# Channel order, mean and standard deviation.
VALUES = {
    "bgr": ("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
    "rgb": ("RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "cifar10": ("RGB", (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255)),
    "cifar100": ("RGB", (129.304, 124.07, 112.434), (68.17, 65.392, 70.418)),
}
SOURCES = {
    "data.megengine.org.cn": "MegEngine/Models",
    "download.openmmlab.com": "MMPreTrain",
    "download-mindspore.osinfra.cn": "MindCV",
    "download.mindspore.cn": "MindCV",
}


def read_facts():
    lines = (Path(__file__).with_name("published_rows.txt")).read_text().splitlines()
    head, *rows = [line.split() for line in lines if not line.startswith("#")]
    return {row[0]: dict(zip(head, row)) for row in rows}


FACTS = read_facts()


def number(text):
    return None if text == "-" else float(text)


def preprocess_of(fact):
    order, mean, std = VALUES[fact["values"]]
    library, *rest = fact["pipeline"].split("/")
    if library == "none":  # images of this size, which go into the network as they are
        (size,) = map(int, rest)
        return Preprocess(order, mean, std, size, size)
    interpolation, resize, crop = rest
    edges = tuple(map(int, resize.split("x")))
    resize = edges if len(edges) == 2 else edges[0]
    return Preprocess(order, mean, std, resize, int(crop), interpolation, library, "down")


def test_the_rows_are_those():
    assert [row.name for row in ROWS] == list(FACTS)
    assert list(BY_NAME.values()) == list(ALL) and ALL[-len(OWN) :] == OWN
    assert list(ALL[: len(ROWS)]) == ROWS  # so that they are the default ones
    sources = [row.source for row in ROWS]
    counts = {source: sources.count(source) for source in sources}
    assert counts == {"MegEngine/Models": 7, "MMPreTrain": 25, "MindCV": 2}
    assert len({row.url for row in ROWS}) == len({row.digest_prefix for row in ROWS}) == 34


@pytest.mark.parametrize("name", FACTS)
def test_a_row_is_as_published(name):
    row, fact = BY_NAME[name], FACTS[name]
    assert (row.arch, row.dataset) == (fact["arch"], fact["dataset"])
    assert row.num_classes == CLASSES[row.dataset] == len(dataset_classes(row.dataset))
    assert (row.top1, row.top5) == (number(fact["top1"]), number(fact["top5"]))
    assert (row.url, row.digest_prefix) == (fact["url"], fact["digits"])
    assert row.source == SOURCES[row.url.split("/")[2]]
    assert row.licence == "Apache-2.0"
    assert row.preprocess == preprocess_of(fact)


@pytest.mark.parametrize("name", FACTS)
def test_the_digits_are_in_the_files_name(name):
    """MMPreTrain's and MindCV's tools put the sha256 there; MegEngine/Models tells nothing."""
    row = BY_NAME[name]
    file = row.url.split("/")[-1]
    assert re.fullmatch(r".*[_-][0-9a-f]{8}(-910v2)?\.(pkl|pth|ckpt)", file)
    assert re.search(rf"[_-]{row.digest_prefix}[.-]", file)
    assert row.digest_is_sha256 == (row.source != "MegEngine/Models")


def test_megengines_file_names_say_what_the_cards_say():
    """Upstream writes arch_augmentation_accuracy_digits; a slip of the pen here would show."""
    for row in ROWS:
        if row.source == "MegEngine/Models":
            stem, suffix = row.url.split("/")[-1].split(".")
            *arch, augmentation, accuracy, digits = stem.split("_")
            assert ("_".join(arch), suffix) == (row.arch, "pkl")
            assert row.name == f"{row.arch}_{augmentation}_in1k"
            assert int(accuracy) == round(row.top1 * 1000)
            assert digits == row.digest_prefix
            assert row.recipe == row.name


def test_recipes_are_there():
    recipes = {row.recipe for row in ROWS if row.recipe is not None}
    assert recipes
    assert {name for name in recipes if (RECIPES / f"{name}.yaml").is_file()} == recipes


def test_where_the_publishers_tables_err_there_is_a_note():
    for name, word in [
        ("resnet34_8xb32_in1k", "2.18 M"),
        ("resnet50_8xb256-rsb-a3-100e_in1k", "160 px"),
        ("resnet50_8xb8_cub", "ImageNet-21k"),
        ("wide-resnet50_3rdparty_8xb32_in1k", "torchvision"),
        ("wide-resnet50_3rdparty-timm_8xb32_in1k", "timm"),
        ("wide-resnet101_3rdparty_8xb32_in1k", "torchvision"),
        ("resnetv2_50", "25.60 M"),
        ("resnetv2_101", "without an accuracy"),
    ]:
        assert word in BY_NAME[name].note
        assert BY_NAME[name].note.endswith(".") and "\n" not in BY_NAME[name].note


DEFAULTS = {
    "resnet18": "resnet18_naiveaug_in1k",
    "resnet34": "resnet34_naiveaug_in1k",
    "resnet50": "resnet50_fbaug_in1k",
    "resnet101": "resnet101_fbaug_in1k",
    "resnet152": "resnet152_fbaug_in1k",
    "resnext50_32x4d": "resnext50_32x4d_fbaug_in1k",
    "resnext101_32x8d": "resnext101_32x8d_fbaug_in1k",
    "wide_resnet50_2": "wide-resnet50_3rdparty_8xb32_in1k",
    "wide_resnet101_2": "wide-resnet101_3rdparty_8xb32_in1k",
    "resnetv1c50": "resnetv1c50_8xb32_in1k",
    "resnetv1c101": "resnetv1c101_8xb32_in1k",
    "resnetv1c152": "resnetv1c152_8xb32_in1k",
    "resnetv1d50": "resnetv1d50_8xb32_in1k",
    "resnetv1d101": "resnetv1d101_8xb32_in1k",
    "resnetv1d152": "resnetv1d152_8xb32_in1k",
    "resnetv2_50": "resnetv2_50",
    "resnetv2_101": "resnetv2_101",
    "resnet20_cifar": "resnet20_cifar_30e",
    "resnet18_cifar": "resnet18_8xb16_cifar10",
    "resnet34_cifar": "resnet34_8xb16_cifar10",
    "resnet50_cifar": "resnet50_8xb16_cifar10",
    "resnet101_cifar": "resnet101_8xb16_cifar10",
    "resnet152_cifar": "resnet152_8xb16_cifar10",
}


def test_what_pretrained_true_means():
    """Where none of these projects has weights of a network, it means the best."""
    found = {arch: default_row(arch) for arch in ARCHS}
    assert {arch: row.name for arch, row in found.items() if row and arch in DEFAULTS} == DEFAULTS
    for arch in ARCHS.keys() - DEFAULTS.keys():
        rows = [row for row in ALL if row.arch == arch]
        assert found[arch] == (best_row(arch) or (rows[0] if rows else None)), arch
    assert default_row("no_such") is None


def test_what_the_best_is():
    """The most accurate on the data set of the default ones that may be used commercially."""
    names = {arch: best_row(arch).name for arch in ARCHS if best_row(arch)}
    assert names["resnet50"] == "resnet50.a1_in1k"  # 88.45 % on birds is another matter
    assert names["resnet18"] == "resnet18.a1_in1k"  # Facebook's 73.286 % is CC-BY-NC
    assert names["resnext101_32x8d"] == "resnext101_32x8d.tv2_in1k"  # 84.276 % likewise
    assert names["resnetv2_50"] == "resnetv2_50"
    assert names["resnet50_cifar"] == "resnet50_8xb16_cifar10"
    assert best_row("resnext101_32x16d") is None and best_row("resnet32_cifar") is None
    for arch, name in names.items():
        best = BY_NAME[name]
        others = [row for row in ALL if row.arch == arch and row.dataset == best.dataset]
        assert best.commercial
        assert not [row for row in others if row.commercial and (row.top1 or 0) > (best.top1 or 0)]


def test_a_name_means_one_thing():
    """A row called like a network is what that network's name means."""
    for name in set(BY_NAME) & set(ARCHS):
        assert default_row(name) is BY_NAME[name] and BY_NAME[name].arch == name
    assert {row.arch for row in ROWS} <= set(ARCHS)


@pytest.mark.parametrize("name", FACTS)
def test_its_network_has_these_parameters_and_multiply_adds(name):
    row, fact = BY_NAME[name], FACTS[name]
    size = int(fact["pipeline"].split("/")[-1])
    assert row.preprocess.size == size
    params, macs, count = cost_of(row.arch, row.num_classes, size)
    assert row.params == params == count == int(fact["params"])
    assert row.macs == pytest.approx(float(fact["gmacs"]) * 1e9, rel=1e-9)
    assert row.macs == pytest.approx(macs, abs=0.5e6)
    (only,) = row.results
    assert (only.preprocess, only.macs) == (row.preprocess, row.macs)
    assert (only.top1, only.top5, only.others) == (row.top1, row.top5, {})
