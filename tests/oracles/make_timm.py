"""Record the logits of timm's ResNets as tests/oracles/fixtures/timm_*.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 numpy==2.2.6
    python tests/oracles/make_timm.py [NAME ...]

(Python 3.11, CPU.) Of the widest ResNeXts, whose weights take gigabytes, the fixtures have one
block in each stage; the test builds ours in the same way.
"""

import sys

from torch_oracle import (
    DEEP_SIZES,
    IMAGENET_SIZES,
    SMALL_SIZES,
    declare_torchvision_ops,
    record,
)

# timm's name -> ours, and the sizes of the images.
NETWORKS = {
    "resnet50c": ("resnetv1c50", IMAGENET_SIZES),
    "resnet101c": ("resnetv1c101", SMALL_SIZES),
    "resnet152c": ("resnetv1c152", SMALL_SIZES),
    "resnet18d": ("resnetv1d18", IMAGENET_SIZES),
    "resnet26d": ("resnetv1d26", IMAGENET_SIZES),
    "resnet34d": ("resnetv1d34", IMAGENET_SIZES),
    "resnet50d": ("resnetv1d50", IMAGENET_SIZES),
    "resnet101d": ("resnetv1d101", SMALL_SIZES),
    "resnet152d": ("resnetv1d152", SMALL_SIZES),
    "resnet200d": ("resnetv1d200", SMALL_SIZES),
    "resnet50s": ("resnetv1s50", IMAGENET_SIZES),
    "resnet101s": ("resnetv1s101", SMALL_SIZES),
    "resnet152s": ("resnetv1s152", SMALL_SIZES),
    "resnet10t": ("resnet10t", IMAGENET_SIZES),
    "resnet14t": ("resnet14t", IMAGENET_SIZES),
    "resnet26t": ("resnet26t", IMAGENET_SIZES),
    "resnet26": ("resnet26", IMAGENET_SIZES),
    "resnext50d_32x4d": ("resnext50d_32x4d", IMAGENET_SIZES),
    "resnext101_32x4d": ("resnext101_32x4d", DEEP_SIZES),
    "resnetv2_18": ("resnetv2_18", IMAGENET_SIZES),
    "resnetv2_18d": ("resnetv2_18d", IMAGENET_SIZES),
    "resnetv2_34": ("resnetv2_34", IMAGENET_SIZES),
    "resnetv2_34d": ("resnetv2_34d", IMAGENET_SIZES),
    "resnetv2_50": ("resnetv2_50_timm", IMAGENET_SIZES),
    "resnetv2_101": ("resnetv2_101_timm", DEEP_SIZES),
}
WIDTHS = (16, 32, 48)  # of each of the 32 groups


def main() -> None:
    declare_torchvision_ops()
    import timm
    from timm.models.resnet import Bottleneck, ResNet

    version = f"timm {timm.__version__}"
    for name in sys.argv[1:] or NETWORKS:
        arch, sizes = NETWORKS[name]
        model = timm.create_model(name, num_classes=20)
        record(f"timm_{name}", arch, f"{name}, {version}", model, sizes)
    for width in () if sys.argv[1:] else WIDTHS:
        name = f"resnext101_32x{width}d"
        model = ResNet(Bottleneck, [1, 1, 1, 1], 20, cardinality=32, base_width=width)
        source = f"{name} with one block in each stage, {version}"
        record(f"timm_{name}_short", name, source, model, SMALL_SIZES)


if __name__ == "__main__":
    main()
