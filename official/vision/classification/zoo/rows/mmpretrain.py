"""MMPreTrain's ResNets, configs/resnet and configs/wrn at ee7f2e8 (2024-11-01)."""

from dataclasses import replace
from typing import Dict, Optional, Tuple

from ...preprocess import PRESETS, Preprocess
from .row import Row

_ROOT = "https://download.openmmlab.com/mmclassification/v0/"
_CLASSES: Dict[str, int] = {
    "ImageNet-1k": 1000,
    "CIFAR-10": 10,
    "CIFAR-100": 100,
    "CUB-200-2011": 200,
}

# Parameters and multiply-adds by network and data set, counted (resnet/complexity.py).
_SIZES: Dict[Tuple[str, str], Tuple[int, float]] = {
    ("resnet18", "ImageNet-1k"): (11_689_512, 1.814e9),
    ("resnet34", "ImageNet-1k"): (21_797_672, 3.664e9),
    ("resnet50", "ImageNet-1k"): (25_557_032, 4.089e9),
    ("resnet101", "ImageNet-1k"): (44_549_160, 7.801e9),
    ("resnet152", "ImageNet-1k"): (60_192_808, 11.514e9),
    ("resnetv1d50", "ImageNet-1k"): (25_576_264, 4.329e9),
    ("resnetv1d101", "ImageNet-1k"): (44_568_392, 8.041e9),
    ("resnetv1d152", "ImageNet-1k"): (60_212_040, 11.753e9),
    ("resnetv1c50", "ImageNet-1k"): (25_576_264, 4.329e9),
    ("resnetv1c101", "ImageNet-1k"): (44_568_392, 8.041e9),
    ("resnetv1c152", "ImageNet-1k"): (60_212_040, 11.753e9),
    ("resnet18_cifar", "CIFAR-10"): (11_173_962, 0.555e9),
    ("resnet34_cifar", "CIFAR-10"): (21_282_122, 1.159e9),
    ("resnet50_cifar", "CIFAR-10"): (23_520_842, 1.298e9),
    ("resnet101_cifar", "CIFAR-10"): (42_512_970, 2.510e9),
    ("resnet152_cifar", "CIFAR-10"): (58_156_618, 3.722e9),
    ("resnet50_cifar", "CIFAR-100"): (23_705_252, 1.298e9),
    ("resnet50", "CUB-200-2011"): (23_917_832, 16.349e9),
    ("wide_resnet50_2", "ImageNet-1k"): (68_883_240, 11.398e9),
    ("wide_resnet101_2", "ImageNet-1k"): (126_886_696, 22.753e9),
}

_CV2 = PRESETS["mmpretrain"]
_PILLOW = replace(_CV2, library="pillow")
_RSB = replace(_PILLOW, resize=236, interpolation="bicubic")
_BICUBIC = replace(_PILLOW, interpolation="bicubic")
_CUB = replace(_CV2, resize=(600, 600), crop=448)
# Images of another size than the data set's own are brought to it, which MMPreTrain does not do.
_CIFAR10 = Preprocess("RGB", (125.307, 122.961, 113.8575), (51.5865, 50.847, 51.255), 32, 32)
_CIFAR100 = Preprocess("RGB", (129.304, 124.07, 112.434), (68.17, 65.392, 70.418), 32, 32)

_CUB_NOTE = (
    'MMPreTrain\'s table says "From scratch"; its configuration starts from a network trained on '
    "ImageNet-21k by Alibaba MIIL."
)


def _row(
    name: str,
    arch: str,
    file: str,
    top1: float,
    top5: Optional[float],
    preprocess: Preprocess,
    dataset: str = "ImageNet-1k",
    note: str = "",
) -> Row:
    """A row; ``file`` is its file's name, or what that has besides the row's."""
    stem = file if "_" in file else f"{name}_{file}"
    folder = "" if "/" in stem else "resnet/"
    params, macs = _SIZES[arch, dataset]
    return Row(
        name=name,
        arch=arch,
        dataset=dataset,
        num_classes=_CLASSES[dataset],
        params=params,
        macs=macs,
        top1=top1,
        top5=top5,
        url=f"{_ROOT}{folder}{stem}.pth",
        digest_prefix=stem[-8:],
        digest_is_sha256=True,  # tools/model_converters/publish_model.py
        licence="Apache-2.0",
        source="MMPreTrain",
        preprocess=preprocess,
        recipe=None if "3rdparty" in name else name,
        note=note,
    )


MMPRETRAIN: Tuple[Row, ...] = (
    _row("resnet18_8xb32_in1k", "resnet18", "20210831-fbbb1da6", 69.90, 89.43, _CV2),
    _row(
        "resnet34_8xb32_in1k",
        "resnet34",
        "20210831-f257d4e6",
        73.62,
        91.59,
        _CV2,
        note="MMPreTrain's table lists 2.18 M parameters, a slip for 21.80 M.",
    ),
    _row("resnet50_8xb32_in1k", "resnet50", "20210831-ea4938fc", 76.55, 93.06, _CV2),
    _row("resnet101_8xb32_in1k", "resnet101", "20210831-539c63f8", 77.97, 94.06, _CV2),
    _row("resnet152_8xb32_in1k", "resnet152", "20210901-4d7582fa", 78.48, 94.13, _CV2),
    _row(
        "resnetv1d50_8xb32_in1k",
        "resnetv1d50",
        "resnetv1d50_b32x8_imagenet_20210531-db14775a",
        77.54,
        93.57,
        _PILLOW,
    ),
    _row(
        "resnetv1d101_8xb32_in1k",
        "resnetv1d101",
        "resnetv1d101_b32x8_imagenet_20210531-6e13bcd3",
        78.93,
        94.48,
        _PILLOW,
    ),
    _row(
        "resnetv1d152_8xb32_in1k",
        "resnetv1d152",
        "resnetv1d152_b32x8_imagenet_20210531-278cf22a",
        79.41,
        94.70,
        _PILLOW,
    ),
    _row(
        "resnet50_8xb32-fp16_in1k",
        "resnet50",
        "fp16/resnet50_batch256_fp16_imagenet_20210320-b3964210",
        76.30,
        93.07,
        _CV2,
    ),
    _row("resnet50_8xb256-rsb-a1-600e_in1k", "resnet50", "20211228-20e21305", 80.12, 94.78, _RSB),
    _row("resnet50_8xb256-rsb-a2-300e_in1k", "resnet50", "20211228-0fd8be6e", 79.55, 94.37, _RSB),
    _row(
        "resnet50_8xb256-rsb-a3-100e_in1k",
        "resnet50",
        "20211228-3493673c",
        78.30,
        93.80,
        _RSB,
        note="Trained at 224 px; the paper's A3 trains at 160 px.",
    ),
    _row("resnetv1c50_8xb32_in1k", "resnetv1c50", "20220214-3343eccd", 77.01, 93.58, _PILLOW),
    _row("resnetv1c101_8xb32_in1k", "resnetv1c101", "20220214-434fe45f", 78.30, 94.27, _PILLOW),
    _row("resnetv1c152_8xb32_in1k", "resnetv1c152", "20220214-c013291f", 78.76, 94.41, _PILLOW),
    _row(
        "resnet18_8xb16_cifar10",
        "resnet18_cifar",
        "resnet18_b16x8_cifar10_20210528-bd6371c8",
        94.82,
        None,
        _CIFAR10,
        "CIFAR-10",
    ),
    _row(
        "resnet34_8xb16_cifar10",
        "resnet34_cifar",
        "resnet34_b16x8_cifar10_20210528-a8aa36a6",
        95.34,
        None,
        _CIFAR10,
        "CIFAR-10",
    ),
    _row(
        "resnet50_8xb16_cifar10",
        "resnet50_cifar",
        "resnet50_b16x8_cifar10_20210528-f54bfad9",
        95.55,
        None,
        _CIFAR10,
        "CIFAR-10",
    ),
    _row(
        "resnet101_8xb16_cifar10",
        "resnet101_cifar",
        "resnet101_b16x8_cifar10_20210528-2d29e936",
        95.58,
        None,
        _CIFAR10,
        "CIFAR-10",
    ),
    _row(
        "resnet152_8xb16_cifar10",
        "resnet152_cifar",
        "resnet152_b16x8_cifar10_20210528-3e8e9178",
        95.76,
        None,
        _CIFAR10,
        "CIFAR-10",
    ),
    _row(
        "resnet50_8xb16_cifar100",
        "resnet50_cifar",
        "resnet50_b16x8_cifar100_20210528-67b58a1b",
        79.90,
        95.19,
        _CIFAR100,
        "CIFAR-100",
    ),
    _row(
        "resnet50_8xb8_cub",
        "resnet50",
        "20220307-57840e60",
        88.45,
        None,
        _CUB,
        "CUB-200-2011",
        note=_CUB_NOTE,
    ),
    _row(
        "wide-resnet50_3rdparty_8xb32_in1k",
        "wide_resnet50_2",
        "wrn/wide-resnet50_3rdparty_8xb32_in1k_20220304-66678344",
        78.48,
        94.08,
        _PILLOW,
        note="Trained by torchvision.",
    ),
    _row(
        "wide-resnet50_3rdparty-timm_8xb32_in1k",
        "wide_resnet50_2",
        "wrn/wide-resnet50_3rdparty-timm_8xb32_in1k_20220304-83ae4399",
        81.45,
        95.53,
        _BICUBIC,
        note="Trained by timm.",
    ),
    _row(
        "wide-resnet101_3rdparty_8xb32_in1k",
        "wide_resnet101_2",
        "wrn/wide-resnet101_3rdparty_8xb32_in1k_20220304-8d5f9d61",
        78.84,
        94.28,
        _PILLOW,
        note="Trained by torchvision.",
    ),
)
