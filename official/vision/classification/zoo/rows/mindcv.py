"""MindCV's ResNetV2, configs/resnetv2 at 51b0636 (2025-07-24)."""

from typing import Optional, Tuple

from ...preprocess import PRESETS
from .row import Row


def _row(
    arch: str,
    path: str,
    params: int,
    macs: float,
    top1: Optional[float],
    top5: Optional[float],
    note: str,
) -> Row:
    return Row(
        name=arch,
        arch=arch,
        dataset="ImageNet-1k",
        num_classes=1000,
        params=params,
        macs=macs,
        top1=top1,
        top5=top5,
        url=f"https://{path}",
        digest_prefix=path.split("/")[-1].split("-")[1][:8],
        digest_is_sha256=True,  # by MindCV's rule for names
        licence="Apache-2.0",
        source="MindCV",
        preprocess=PRESETS["mmpretrain"],  # MindSpore's Resize is OpenCV's too
        recipe=arch,
        note=note,
    )


MINDCV: Tuple[Row, ...] = (
    _row(
        "resnetv2_50",
        "download-mindspore.osinfra.cn/toolkits/mindcv/resnetv2/resnetv2_50-a0b9f7f8-910v2.ckpt",
        25_553_064,
        4.089e9,
        77.03,
        93.29,
        "MindCV's table lists 25.60 M parameters: it counts the moving statistics of the batch "
        "normalisations, which are not trained. Its model file points to other weights "
        "(3c2f143b, top-1 76.90).",
    ),
    _row(
        "resnetv2_101",
        "download.mindspore.cn/toolkits/mindcv/resnetv2/resnetv2_101-5d4c49a1.ckpt",
        44_545_192,
        7.801e9,
        None,
        None,
        "MindCV publishes the weights without an accuracy.",
    ),
)
