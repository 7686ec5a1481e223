"""Record the logits of He et al.'s CIFAR ResNets as tests/oracles/fixtures/cifar_*.

    pip install torch==2.13.0 numpy==2.2.6
    python tests/oracles/make_cifar.py

(Python 3.11, CPU.) The names have the ``module.`` of DataParallel, as in the published files.
"""

from cifar_torch import CifarResNet
from torch_oracle import CIFAR_SIZES, record


def main() -> None:
    for depth in (20, 56):
        model = CifarResNet((depth - 2) // 6)
        arch = f"resnet{depth}_cifar"
        record(f"cifar_resnet{depth}", arch, f"ResNet-{depth}", model, CIFAR_SIZES, "module.")


if __name__ == "__main__":
    main()
