"""Record the logits of MMPreTrain's published ResNets as tests/oracles/fixtures/mmpretrain_*.

    pip install torch==2.13.0 torchvision==0.28.0 mmengine==0.10.7 mmcv-lite==2.2.0 numpy==2.2.6
    pip install --no-deps mmpretrain==1.2.0
    pip install einops modelindex mat4py importlib-metadata rich matplotlib
    python tests/oracles/make_mmpretrain.py

(Python 3.11, CPU.) The networks are those of MMPreTrain's own configurations, named here, but for
the number of classes.
"""

from torch_oracle import CIFAR_SIZES, DEEP_SIZES, IMAGENET_SIZES, declare_torchvision_ops, record

# Configuration -> our name, classes, sizes.
NETWORKS = {
    "resnet18_8xb32_in1k": ("resnet18", 20, IMAGENET_SIZES),
    "resnet50_8xb32_in1k": ("resnet50", 20, IMAGENET_SIZES),
    "resnetv1c50_8xb32_in1k": ("resnetv1c50", 20, IMAGENET_SIZES),
    "resnetv1d50_8xb32_in1k": ("resnetv1d50", 20, IMAGENET_SIZES),
    "resnetv1d101_8xb32_in1k": ("resnetv1d101", 20, DEEP_SIZES),
    "resnet18_8xb16_cifar10": ("resnet18_cifar", 10, CIFAR_SIZES),
    "resnet50_8xb16_cifar10": ("resnet50_cifar", 10, CIFAR_SIZES),
}


def main() -> None:
    declare_torchvision_ops()
    import mmpretrain

    for config, (arch, classes, sizes) in NETWORKS.items():
        model = mmpretrain.get_model(config, pretrained=False, head={"num_classes": classes})
        source = f"{config}, mmpretrain {mmpretrain.__version__}"
        record(f"mmpretrain_{config}", arch, source, model, sizes)


if __name__ == "__main__":
    main()
