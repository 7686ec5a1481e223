"""ResNets for 32x32 images, of two kinds.

He et al.'s own (CVPR 2016, section 4.2) have 6n+2 layers: a 3x3 convolution, three stages of n
basic blocks with 16, 32 and 64 channels, global average pooling and a linear classifier.
Shortcuts have no parameters (option A): where the map is halved they take every second pixel and
pad the new channels with zeros.

MMPreTrain's are the networks for ImageNet, with all their channels, behind a stem that keeps the
image's size.
"""

from typing import Any, Dict, Optional, Sequence, Tuple

import megengine.module as M
from megengine import Tensor

from ..ops.plain import Layer, whole
from .blocks import (
    BasicBlock,
    Bottleneck,
    DropPath,
    Norm,
    build_stages,
    conv3x3,
    end_block,
    initialise,
)
from .complexity import Cost
from .model import STAGES, ResNet
from .pretrained import accepts_pretrained


class CifarBlock(Layer):
    """Two 3x3 convolutions and a shortcut without parameters.

    ``(N, in, H, W)`` -> 3x3/stride, BN, ReLU -> 3x3, BN -> + shortcut, ReLU
    -> ``(N, channels, H/stride, W/stride)``
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        norm: Norm = M.BatchNorm2d,
        dilation: int = 1,
        first_dilation: Optional[int] = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.stride = stride
        self.new_channels = channels - in_channels
        self.conv1 = conv3x3(in_channels, channels, stride, dilation=first_dilation or dilation)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = norm(channels)
        self.drop_path = DropPath(drop_path)

    def shortcut(self, x: Tensor) -> Tensor:
        """Every ``stride``-th pixel, new channels zero: half before the old ones, half after."""
        before = self.new_channels // 2
        return self.ops.subsample(x, self.stride, before, self.new_channels - before)

    def forward(self, x: Tensor) -> Tensor:
        x, shortcut = self.ops.fork(x)
        out = self.ops.conv_norm(self.conv1, self.bn1, x, relu=True)
        return end_block(self, self.conv2, self.bn2, out, self.shortcut(shortcut))

    def complexity(self, cost: Cost) -> None:
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2).relu()

    @property
    def last_layer(self) -> M.Module:
        """What ends the residual branch."""
        return self.bn2


class CifarResNet(Layer):
    """A 3x3 convolution, three stages of ``blocks`` basic blocks, and a linear classifier.

    ``(N, in_channels, H, W)`` -> 3x3, BN, ReLU -> ``(N, 16, H, W)`` -> layer1..layer3 with
    16, 32, 64 channels at strides 1, 2, 4 -> mean over the map -> ``(N, num_classes)`` logits

    Args:
        blocks: blocks per stage; the network has ``6 * blocks + 2`` layers.
        num_classes, zero_init_residual, norm, in_channels, drop_path: as in ResNet.
        replace_stride_with_dilation: as in ResNet, for layer2 and layer3.

    Raises:
        ValueError: for arguments outside of what is said there.
    """

    def __init__(
        self,
        blocks: int,
        num_classes: int = 10,
        zero_init_residual: bool = False,
        norm: Norm = M.BatchNorm2d,
        in_channels: int = 3,
        replace_stride_with_dilation: Optional[Sequence[bool]] = None,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = norm(16)
        self.layer1, self.layer2, self.layer3 = build_stages(
            CifarBlock,
            (16, 32, 64),
            (blocks, blocks, blocks),
            in_channels=16,
            dilate=replace_stride_with_dilation,
            drop_path=drop_path,
            norm=norm,
        )
        self.fc = M.Linear(64, num_classes)
        initialise(self, zero_init_residual)

    @whole
    def extract_features(self, x: Tensor) -> Dict[str, Tensor]:
        """Every stage's output by name: ``stem, res2, res3, res4``."""
        features = {}
        features["stem"] = x = self.ops.conv_norm(self.conv1, self.bn1, x, relu=True)
        features["res2"] = x = self.layer1(x)
        features["res3"] = x = self.layer2(x)
        features["res4"] = self.layer3(x)
        return features

    def extract_feat(self, x: Tensor) -> Tuple[Tensor]:
        """The pooled feature, ``(N, 64)``, in a tuple."""
        return (self.ops.mean(self.extract_features(x)["res4"]),)

    @whole
    def forward(self, x: Tensor) -> Tensor:
        (feature,) = self.extract_feat(x)
        return self.ops.linear(self.fc, feature)

    def complexity(self, cost: Cost) -> None:
        cost.conv(self.conv1).norm(self.bn1).relu()
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                block.complexity(cost)
        cost.global_pool().linear(self.fc)


@accepts_pretrained
def resnet20_cifar(**kwargs: Any) -> CifarResNet:
    """ResNet-20 for 32x32 images: 0.27 M parameters, 41 M multiply-adds."""
    return CifarResNet(3, **kwargs)


@accepts_pretrained
def resnet32_cifar(**kwargs: Any) -> CifarResNet:
    """ResNet-32 for 32x32 images: 0.46 M parameters, 69 M multiply-adds."""
    return CifarResNet(5, **kwargs)


@accepts_pretrained
def resnet44_cifar(**kwargs: Any) -> CifarResNet:
    """ResNet-44 for 32x32 images: 0.66 M parameters, 97 M multiply-adds."""
    return CifarResNet(7, **kwargs)


@accepts_pretrained
def resnet56_cifar(**kwargs: Any) -> CifarResNet:
    """ResNet-56 for 32x32 images: 0.85 M parameters, 126 M multiply-adds."""
    return CifarResNet(9, **kwargs)


@accepts_pretrained
def resnet110_cifar(**kwargs: Any) -> CifarResNet:
    """ResNet-110 for 32x32 images: 1.7 M parameters, 253 M multiply-adds."""
    return CifarResNet(18, **kwargs)


@accepts_pretrained
def resnet18_cifar(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """ResNet-18 with a 3x3 stem: basic blocks, 11.2 M parameters, 0.56 G multiply-adds."""
    return ResNet(BasicBlock, STAGES[18], num_classes, stem="3x3", **kwargs)


@accepts_pretrained
def resnet34_cifar(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """ResNet-34 with a 3x3 stem: basic blocks, 21.3 M parameters, 1.2 G multiply-adds."""
    return ResNet(BasicBlock, STAGES[34], num_classes, stem="3x3", **kwargs)


@accepts_pretrained
def resnet50_cifar(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """ResNet-50 with a 3x3 stem: bottlenecks, 23.5 M parameters, 1.3 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[50], num_classes, stem="3x3", **kwargs)


@accepts_pretrained
def resnet101_cifar(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """ResNet-101 with a 3x3 stem: bottlenecks, 42.5 M parameters, 2.5 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], num_classes, stem="3x3", **kwargs)


@accepts_pretrained
def resnet152_cifar(num_classes: int = 10, **kwargs: Any) -> ResNet:
    """ResNet-152 with a 3x3 stem: bottlenecks, 58.2 M parameters, 3.7 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[152], num_classes, stem="3x3", **kwargs)
