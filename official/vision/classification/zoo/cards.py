"""Which trained weights exist: one card per published row."""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from ..preprocess import PRESETS, Preprocess


@dataclass(frozen=True)
class Card:
    """A set of trained weights and all one must know to use them.

    Args:
        name: the row's name, unique.
        arch: the network function that takes the weights.
        dataset, num_classes: what it was trained on.
        params: trainable parameters.
        macs: multiply-adds of convolutions and linear layers at ``preprocess.crop`` pixels.
        top1, top5: published accuracy in per cent on the validation set, single centre crop.
        url: where the file is.
        digest_prefix: hex digits in the file's name.
        digest_of: what is known of what they hash.
        licence, source: of the weights, and the project that published them.
        recipe: the file in ``official/recipes`` that states how they were trained.
    """

    name: str
    arch: str
    dataset: str
    num_classes: int
    params: int
    macs: float
    top1: float
    top5: Optional[float]
    url: str
    digest_prefix: str
    digest_of: str
    licence: str
    source: str
    recipe: str
    preprocess: Preprocess


def _megengine(
    arch: str, augmentation: str, digits: str, params: int, macs: float, top1: float, top5: float
) -> Card:
    """A row of MegEngine/Models, official/vision/classification/resnet at 78882f9 (2022-10-31)."""
    return Card(
        name=f"{arch}_{augmentation}_in1k",
        arch=arch,
        dataset="ImageNet-1k",
        num_classes=1000,
        params=params,
        macs=macs,
        top1=top1,
        top5=top5,
        url="https://data.megengine.org.cn/models/weights/"
        f"{arch}_{augmentation}_{round(top1 * 1000):05d}_{digits}.pkl",
        digest_prefix=digits,
        digest_of="not documented; sha256 and md5 of the file are tried",
        licence="Apache-2.0",
        source="MegEngine/Models",
        recipe=f"megengine_{augmentation}",
        preprocess=PRESETS["megengine"],
    )


CARDS: Tuple[Card, ...] = (
    _megengine("resnet18", "naiveaug", "78a63ca6", 11_689_512, 1.814e9, 70.312, 89.430),
    _megengine("resnet34", "naiveaug", "fd9d869d", 21_797_672, 3.664e9, 73.960, 91.630),
    _megengine("resnet50", "fbaug", "4e14b7d1", 25_557_032, 4.089e9, 76.254, 93.056),
    _megengine("resnet101", "fbaug", "b7932921", 44_549_160, 7.801e9, 77.944, 93.844),
    _megengine("resnet152", "fbaug", "7551aff3", 60_192_808, 11.514e9, 78.582, 94.130),
    _megengine("resnext50_32x4d", "fbaug", "c4b04e5e", 25_028_904, 4.230e9, 77.592, 93.644),
    _megengine("resnext101_32x8d", "fbaug", "80efb344", 88_791_336, 16.414e9, 79.520, 94.586),
)

BY_NAME: Dict[str, Card] = {card.name: card for card in CARDS}


def default_card(arch: str) -> Optional[Card]:
    """The weights that ``pretrained=True`` means for ``arch``, None where there are none."""
    return next((card for card in CARDS if card.arch == arch), None)
