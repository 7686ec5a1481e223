"""Record the logits of torchvision's ResNets as tests/oracles/fixtures/torchvision_*.

    pip install torch==2.13.0 torchvision==0.28.0 numpy==2.2.6
    python tests/oracles/make_torchvision.py [NAME ...]

(Python 3.11, CPU.)
"""

import sys

from torch_oracle import (
    DEEP_SIZES,
    IMAGENET_SIZES,
    SMALL_SIZES,
    declare_torchvision_ops,
    record,
)

NETWORKS = {
    "resnet18": IMAGENET_SIZES,
    "resnet34": IMAGENET_SIZES,
    "resnet50": IMAGENET_SIZES,
    "resnet101": DEEP_SIZES,
    "resnet152": SMALL_SIZES,
    "resnext50_32x4d": IMAGENET_SIZES,
    "resnext101_32x8d": DEEP_SIZES,
    "resnext101_64x4d": SMALL_SIZES,
    "wide_resnet50_2": DEEP_SIZES,
    "wide_resnet101_2": SMALL_SIZES,
}


def main() -> None:
    declare_torchvision_ops()
    import torchvision

    for name in sys.argv[1:] or NETWORKS:
        sizes = NETWORKS[name]
        model = getattr(torchvision.models, name)(num_classes=20)
        source = f"{name}, torchvision {torchvision.__version__}"
        record(f"torchvision_{name}", name, source, model, sizes)


if __name__ == "__main__":
    main()
