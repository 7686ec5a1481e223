"""Record the logits of timm's ResNet-C and ResNet-D as tests/oracles/fixtures/timm_*.

    pip install torch==2.13.0 torchvision==0.28.0 timm==1.0.31 numpy==2.2.6
    python tests/oracles/make_timm.py

(Python 3.11, CPU.)
"""

from torch_oracle import declare_torchvision_ops, record

NETWORKS = {"resnet50c": "resnetv1c50", "resnet50d": "resnetv1d50"}  # timm's name -> ours


def main() -> None:
    declare_torchvision_ops()
    import timm

    for name, arch in NETWORKS.items():
        model = timm.create_model(name, num_classes=20)
        record(f"timm_{name}", arch, f"{name}, timm {timm.__version__}", model)


if __name__ == "__main__":
    main()
