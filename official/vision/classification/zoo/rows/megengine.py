"""MegEngine/Models, official/vision/classification/resnet at 78882f9 (2022-10-31)."""

from typing import Tuple

from ...preprocess import PRESETS
from .row import Row


def _row(
    arch: str, augmentation: str, digits: str, params: int, macs: float, top1: float, top5: float
) -> Row:
    return Row(
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
        digest_is_sha256=False,
        licence="Apache-2.0",
        source="MegEngine/Models",
        preprocess=PRESETS["megengine"],
        recipe=f"{arch}_{augmentation}_in1k",
    )


MEGENGINE: Tuple[Row, ...] = (
    _row("resnet18", "naiveaug", "78a63ca6", 11_689_512, 1.814e9, 70.312, 89.430),
    _row("resnet34", "naiveaug", "fd9d869d", 21_797_672, 3.664e9, 73.960, 91.630),
    _row("resnet50", "fbaug", "4e14b7d1", 25_557_032, 4.089e9, 76.254, 93.056),
    _row("resnet101", "fbaug", "b7932921", 44_549_160, 7.801e9, 77.944, 93.844),
    _row("resnet152", "fbaug", "7551aff3", 60_192_808, 11.514e9, 78.582, 94.130),
    _row("resnext50_32x4d", "fbaug", "c4b04e5e", 25_028_904, 4.230e9, 77.592, 93.644),
    _row("resnext101_32x8d", "fbaug", "80efb344", 88_791_336, 16.414e9, 79.520, 94.586),
)
