"""The published rows, against the facts as they stand in MegEngine/Models at 78882f9: its README
for the accuracies, its ``model.py`` for the addresses."""

import math
from pathlib import Path

import megengine.module as M
import pytest

from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.complexity import complexity
from official.vision.classification.zoo import ARCHS, CARDS, default_card
from official.vision.classification.zoo.cards import BY_NAME

RECIPES = Path(__file__).resolve().parents[4] / "official" / "recipes"
FOLDER = "https://data.megengine.org.cn/models/weights/"
# arch, top-1, top-5, file, digits in its name, parameters, 10^9 multiply-adds
FACTS = [
    (
        "resnet18",
        70.312,
        89.43,
        "resnet18_naiveaug_70312_78a63ca6.pkl",
        "78a63ca6",
        11689512,
        1.814,
    ),
    ("resnet34", 73.96, 91.63, "resnet34_naiveaug_73960_fd9d869d.pkl", "fd9d869d", 21797672, 3.664),
    ("resnet50", 76.254, 93.056, "resnet50_fbaug_76254_4e14b7d1.pkl", "4e14b7d1", 25557032, 4.089),
    (
        "resnet101",
        77.944,
        93.844,
        "resnet101_fbaug_77944_b7932921.pkl",
        "b7932921",
        44549160,
        7.801,
    ),
    (
        "resnet152",
        78.582,
        94.13,
        "resnet152_fbaug_78582_7551aff3.pkl",
        "7551aff3",
        60192808,
        11.514,
    ),
    (
        "resnext50_32x4d",
        77.592,
        93.644,
        "resnext50_32x4d_fbaug_77592_c4b04e5e.pkl",
        "c4b04e5e",
        25028904,
        4.23,
    ),
    (
        "resnext101_32x8d",
        79.52,
        94.586,
        "resnext101_32x8d_fbaug_79520_80efb344.pkl",
        "80efb344",
        88791336,
        16.414,
    ),
]


@pytest.mark.parametrize("fact", FACTS, ids=[fact[0] for fact in FACTS])
def test_what_megengine_models_has_published(fact):
    arch, top1, top5, file, digits, params, gmacs = fact
    (card,) = [card for card in CARDS if card.arch == arch and card.source == "MegEngine/Models"]
    assert (card.url, card.digest_prefix) == (FOLDER + file, digits)
    assert (card.top1, card.top5) == (top1, top5)
    assert (card.params, card.macs) == (params, pytest.approx(gmacs * 1e9, rel=1e-9))
    assert (card.dataset, card.num_classes, card.licence) == ("ImageNet-1k", 1000, "Apache-2.0")
    assert card.name == "_".join(file.split("_")[:-2]) + "_in1k"
    assert default_card(arch) is card
    # cv2 images as they are: BGR, bilinear, short edge 256, centre 224
    assert card.preprocess == Preprocess(
        "BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), 256, 224, "bilinear"
    )


def test_the_file_names_say_what_the_cards_say():
    """Upstream writes arch_augmentation_accuracy_digits; a slip of the pen here would show."""
    for card in CARDS:
        if card.source == "MegEngine/Models":
            stem, suffix = card.url[len(FOLDER) :].split(".")
            *arch, augmentation, accuracy, digits = stem.split("_")
            assert ("_".join(arch), suffix) == (card.arch, "pkl")
            assert int(accuracy) == round(card.top1 * 1000)
            assert digits == card.digest_prefix and len(digits) == 8 and int(digits, 16)
            assert card.recipe.endswith(augmentation)


def test_every_row_is_accounted_for():
    assert [card.arch for card in CARDS if card.source == "MegEngine/Models"] == [
        fact[0] for fact in FACTS
    ]
    for what in ("name", "url"):
        values = [getattr(card, what) for card in CARDS]
        assert len(set(values)) == len(values)
    assert list(BY_NAME) == [card.name for card in CARDS]
    assert not set(BY_NAME) & set(ARCHS)  # a name means one thing
    assert {card.arch for card in CARDS} <= set(ARCHS)
    assert default_card("wide_resnet50_2") is None and default_card("no_such") is None


@pytest.mark.parametrize("recipe", sorted({card.recipe for card in CARDS}))
def test_its_recipe_is_there(recipe):
    assert (RECIPES / f"{recipe}.yaml").is_file()


@pytest.mark.parametrize("card", CARDS, ids=[card.name for card in CARDS])
def test_its_network_has_these_parameters_and_multiply_adds(card, monkeypatch):
    for name in ("msra_normal_", "msra_uniform_", "uniform_", "ones_", "zeros_", "fill_"):
        monkeypatch.setattr(M.init, name, lambda *args, **kwargs: None)  # only the shapes matter
    model = ARCHS[card.arch](num_classes=card.num_classes)
    cost = complexity(model, card.preprocess.crop)
    assert cost.params == card.params
    assert cost.params == sum(math.prod(parameter.shape) for parameter in model.parameters())
    assert cost.macs == pytest.approx(card.macs, abs=0.5e6)
