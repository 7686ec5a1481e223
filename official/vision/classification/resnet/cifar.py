"""He et al.'s ResNets for 32x32 images (CVPR 2016, section 4.2).

6n+2 layers: a 3x3 convolution, three stages of n basic blocks with 16, 32 and 64 channels, global
average pooling and a linear classifier. Shortcuts have no parameters (option A): where the map is
halved they take every second pixel and pad the new channels with zeros.
"""

from typing import Dict, Tuple

import megengine.functional as F
import megengine.module as M
from megengine import Tensor

from .complexity import Cost
from .model import Norm, conv3x3, initialise
from .pretrained import accepts_pretrained


class CifarBlock(M.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    ``(N, in, H, W)`` -> 3x3/stride, BN, ReLU -> 3x3, BN -> + shortcut, ReLU
    -> ``(N, channels, H/stride, W/stride)``
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, norm: Norm = M.BatchNorm2d
    ):
        super().__init__()
        self.stride = stride
        self.new_channels = channels - in_channels
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = norm(channels)

    def shortcut(self, x: Tensor) -> Tensor:
        """Every ``stride``-th pixel, new channels zero: half before the old ones, half after."""
        if self.stride != 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            before = self.new_channels // 2
            after = self.new_channels - before
            x = F.nn.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
        return x

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))

    def complexity(self, cost: Cost) -> None:
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2).relu()

    @property
    def last_norm(self) -> M.Module:
        """The normalisation that ends the residual branch."""
        return self.bn2


class CifarResNet(M.Module):
    """A 3x3 convolution, three stages of ``blocks`` basic blocks, and a linear classifier.

    ``(N, in_channels, H, W)`` -> 3x3, BN, ReLU -> ``(N, 16, H, W)`` -> layer1..layer3 with
    16, 32, 64 channels at strides 1, 2, 4 -> mean over the map -> ``(N, num_classes)`` logits

    Args:
        blocks: blocks per stage; the network has ``6 * blocks + 2`` layers.
        num_classes, zero_init_residual, norm, in_channels: as in ResNet.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        zero_init_residual: bool = False,
        norm: Norm = M.BatchNorm2d,
        in_channels: int = 3,
    ):
        super().__init__()
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = norm(16)
        self.layer1 = self._make_layer(16, 16, blocks, 1, norm)
        self.layer2 = self._make_layer(16, 32, blocks, 2, norm)
        self.layer3 = self._make_layer(32, 64, blocks, 2, norm)
        self.fc = M.Linear(64, num_classes)
        initialise(self, zero_init_residual)

    @staticmethod
    def _make_layer(
        in_channels: int, channels: int, blocks: int, stride: int, norm: Norm
    ) -> M.Sequential:
        first = CifarBlock(in_channels, channels, stride, norm)
        rest = [CifarBlock(channels, channels, 1, norm) for _ in range(blocks - 1)]
        return M.Sequential(first, *rest)

    def extract_features(self, x: Tensor) -> Dict[str, Tensor]:
        """Every stage's output by name: ``stem, res2, res3, res4``."""
        features = {}
        features["stem"] = x = F.relu(self.bn1(self.conv1(x)))
        features["res2"] = x = self.layer1(x)
        features["res3"] = x = self.layer2(x)
        features["res4"] = self.layer3(x)
        return features

    def extract_feat(self, x: Tensor) -> Tuple[Tensor]:
        """The pooled feature, ``(N, 64)``, in a tuple."""
        return (self.extract_features(x)["res4"].mean(axis=(2, 3)),)

    def forward(self, x: Tensor) -> Tensor:
        (feature,) = self.extract_feat(x)
        return self.fc(feature)

    def complexity(self, cost: Cost) -> None:
        cost.conv(self.conv1).norm(self.bn1).relu()
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                block.complexity(cost)
        cost.global_pool().linear(self.fc)


@accepts_pretrained
def resnet20_cifar(**kwargs) -> CifarResNet:
    """ResNet-20 for 32x32 images: 0.27 M parameters, 41 M multiply-adds."""
    return CifarResNet(3, **kwargs)


@accepts_pretrained
def resnet32_cifar(**kwargs) -> CifarResNet:
    """ResNet-32 for 32x32 images: 0.46 M parameters, 69 M multiply-adds."""
    return CifarResNet(5, **kwargs)


@accepts_pretrained
def resnet44_cifar(**kwargs) -> CifarResNet:
    """ResNet-44 for 32x32 images: 0.66 M parameters, 97 M multiply-adds."""
    return CifarResNet(7, **kwargs)


@accepts_pretrained
def resnet56_cifar(**kwargs) -> CifarResNet:
    """ResNet-56 for 32x32 images: 0.85 M parameters, 126 M multiply-adds."""
    return CifarResNet(9, **kwargs)


@accepts_pretrained
def resnet110_cifar(**kwargs) -> CifarResNet:
    """ResNet-110 for 32x32 images: 1.7 M parameters, 253 M multiply-adds."""
    return CifarResNet(18, **kwargs)
