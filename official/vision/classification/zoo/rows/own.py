"""What was trained here, with this project's recipes and code; docs/cifar.md has the runs."""

from typing import Tuple

from ...preprocess import Preprocess
from .row import Row

OWN: Tuple[Row, ...] = (
    Row(
        name="resnet20_cifar_30e",
        arch="resnet20_cifar",
        dataset="CIFAR-10 as JPEG",
        num_classes=10,
        params=269_722,
        macs=40.55e6,
        top1=87.12,
        top5=99.38,
        url="official/assets/weights/resnet20_cifar_30e-35140977.safetensors",
        digest_prefix="35140977178871f2e5a57aa6831e2ff5d5e88f60fa750d53ef5056c06776846b",
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
