"""What was trained here, with this project's recipes and code; docs/cifar.md has the runs."""

from typing import Tuple

from ...preprocess import Preprocess
from .card import Card

OWN: Tuple[Card, ...] = (
    Card(
        name="resnet20_cifar_30e",
        arch="resnet20_cifar",
        dataset="CIFAR-10 as JPEG",
        num_classes=10,
        params=269_722,
        macs=40.55e6,
        top1=86.66,
        top5=99.46,
        url="official/assets/weights/resnet20_cifar_30e-bc245c02.safetensors",
        digest_prefix="bc245c0248f520c006d06810761482373b56e59c7afc8215fb06e5d9c6290f6c",
        digest_is_sha256=True,
        licence="Apache-2.0",
        source="this repository",
        preprocess=Preprocess(
            order="RGB",
            mean=(125.307, 122.961, 113.8575),
            std=(51.5865, 50.847, 51.255),
            resize=32,
            crop=32,
        ),
        recipe="resnet20_cifar_30e",
        note="Trained here, on CIFAR-10 saved as JPEG of quality 75; its accuracy is that on the "
        "test images in the same form, which cost other weights ten points: see docs/cifar.md.",
    ),
)
