"""ResNet, ResNeXt and Wide ResNet for ImageNet-sized images.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385);
Xie et al., "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017
(arXiv:1611.05431); Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016
(arXiv:1605.07146). A bottleneck carries its stride on the 3x3 convolution, as every published
weight file of the three projects this repository answers to expects ("v1.5"); the paper has it
on the first 1x1.

Names, arguments and ``extract_features`` are those of MegEngine/Models, so that code written
against its ``model.py`` runs on this one.
"""

import math
from typing import Callable, Dict, Optional, Sequence, Tuple, Type, Union

import megengine.functional as F
import megengine.module as M
from megengine import Tensor

from .complexity import Cost
from .pretrained import accepts_pretrained

Norm = Callable[[int], M.Module]  # channels -> normalisation layer

# Blocks per stage of every depth (He et al., Table 1).
STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(M.Module):
    """Two 3x3 convolutions and a shortcut (He et al., Figure 5, left).

    ``(N, in, H, W)`` -> 3x3/stride, BN, ReLU -> 3x3, BN -> + shortcut, ReLU
    -> ``(N, channels, H/stride, W/stride)``

    The shortcut is the identity, or 1x1/stride, BN where the shape changes (option B).
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm: Norm = M.BatchNorm2d,
        first_dilation: Optional[int] = None,
    ):
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError("BasicBlock has no groups and no width: use Bottleneck for those")
        first = first_dilation or dilation
        self.conv1 = conv3x3(in_channels, channels, stride, dilation=first)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = norm(channels)
        self.downsample = projection(in_channels, channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.downsample(x))

    def complexity(self, cost: Cost) -> None:
        shortcut = cost.branch()
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2)
        cost.join(shortcut.sequence(self.downsample)).relu()

    @property
    def last_norm(self) -> M.Module:
        """The normalisation that ends the residual branch."""
        return self.bn2


class Bottleneck(M.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al., Figure 5, right).

    ``(N, in, H, W)`` -> 1x1, BN, ReLU -> 3x3/stride (``groups``), BN, ReLU -> 1x1, BN
    -> + shortcut, ReLU -> ``(N, 4 channels, H/stride, W/stride)``

    The inner width is ``channels * base_width / 64 * groups``: ResNeXt-50 32x4d has
    ``groups=32, base_width=4``, a Wide ResNet ``base_width=128``.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        groups: int = 1,
        base_width: int = 64,
        dilation: int = 1,
        norm: Norm = M.BatchNorm2d,
        first_dilation: Optional[int] = None,
    ):
        super().__init__()
        width = int(channels * (base_width / 64.0)) * groups
        out_channels = channels * self.expansion
        self.conv1 = M.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups, first_dilation or dilation)
        self.bn2 = norm(width)
        self.conv3 = M.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample = projection(in_channels, out_channels, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + self.downsample(x))

    def complexity(self, cost: Cost) -> None:
        shortcut = cost.branch()
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2).relu()
        cost.conv(self.conv3).norm(self.bn3)
        cost.join(shortcut.sequence(self.downsample)).relu()

    @property
    def last_norm(self) -> M.Module:
        """The normalisation that ends the residual branch."""
        return self.bn3


class ResNet(M.Module):
    """A stem, four stages of residual blocks, global average pooling and a linear classifier.

    ``(N, in_channels, H, W)`` -> stem: 7x7/2, BN, ReLU, 3x3/2 max-pool -> ``(N, 64, H/4, W/4)``
    -> layer1..layer4 at strides 4, 8, 16, 32 -> mean over the map -> ``(N, num_classes)`` logits

    Args:
        block: BasicBlock or Bottleneck.
        layers: blocks in each of the four stages.
        num_classes: logits per image.
        zero_init_residual: start every residual branch at zero, so that each block is the
            identity at first (Goyal et al., arXiv:1706.02677, section 5.1).
        groups, width_per_group: see Bottleneck.
        replace_stride_with_dilation: for layer2, layer3 and layer4, whether to dilate the
            convolutions instead of halving the map (dense prediction).
        norm: builds a normalisation layer from its number of channels.
        in_channels: channels of the input image.
    """

    def __init__(
        self,
        block: Type[Union[BasicBlock, Bottleneck]],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        groups: int = 1,
        width_per_group: int = 64,
        replace_stride_with_dilation: Optional[Sequence[bool]] = None,
        norm: Norm = M.BatchNorm2d,
        in_channels: int = 3,
    ):
        super().__init__()
        dilate = tuple(replace_stride_with_dilation or (False, False, False))
        if len(dilate) != 3:
            raise ValueError(f"replace_stride_with_dilation needs three elements, got {dilate}")
        self.in_channels = 64
        self.dilation = 1
        self.groups = groups
        self.base_width = width_per_group

        self.conv1 = M.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm(64)
        self.maxpool = M.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, 64, layers[0], norm=norm)
        self.layer2 = self._make_layer(block, 128, layers[1], 2, dilate[0], norm)
        self.layer3 = self._make_layer(block, 256, layers[2], 2, dilate[1], norm)
        self.layer4 = self._make_layer(block, 512, layers[3], 2, dilate[2], norm)
        self.fc = M.Linear(512 * block.expansion, num_classes)
        initialise(self, zero_init_residual)

    def _make_layer(
        self,
        block: Type[Union[BasicBlock, Bottleneck]],
        channels: int,
        blocks: int,
        stride: int = 1,
        dilate: bool = False,
        norm: Norm = M.BatchNorm2d,
    ) -> M.Sequential:
        first_dilation = self.dilation  # what follows the removed stride sees a finer grid
        if dilate:
            self.dilation *= stride
            stride = 1
        stage = []
        for index in range(blocks):
            stage.append(
                block(
                    self.in_channels,
                    channels,
                    stride if index == 0 else 1,
                    self.groups,
                    self.base_width,
                    self.dilation,
                    norm,
                    first_dilation if index == 0 else None,
                )
            )
            self.in_channels = channels * block.expansion
        return M.Sequential(*stage)

    def extract_features(self, x: Tensor) -> Dict[str, Tensor]:
        """Every stage's output by name: ``stem, res2, res3, res4, res5``."""
        features = {}
        x = F.relu(self.bn1(self.conv1(x)))
        features["stem"] = x = self.maxpool(x)
        features["res2"] = x = self.layer1(x)
        features["res3"] = x = self.layer2(x)
        features["res4"] = x = self.layer3(x)
        features["res5"] = self.layer4(x)
        return features

    def extract_feat(self, x: Tensor) -> Tuple[Tensor]:
        """The pooled feature, ``(N, C)``, in a tuple as MMPreTrain returns it."""
        return (self.extract_features(x)["res5"].mean(axis=(2, 3)),)

    def forward(self, x: Tensor) -> Tensor:
        (feature,) = self.extract_feat(x)
        return self.fc(feature)

    def complexity(self, cost: Cost) -> None:
        cost.conv(self.conv1).norm(self.bn1).relu().max_pool(self.maxpool)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                block.complexity(cost)
        cost.global_pool().linear(self.fc)


def conv3x3(
    in_channels: int, channels: int, stride: int = 1, groups: int = 1, dilation: int = 1
) -> M.Conv2d:
    """A 3x3 convolution without bias that keeps the map's size at stride 1."""
    return M.Conv2d(
        in_channels,
        channels,
        3,
        stride,
        padding=dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
    )


def projection(in_channels: int, channels: int, stride: int, norm: Norm) -> M.Module:
    """The shortcut: the identity where shapes agree, else 1x1/stride, BN (option B)."""
    if in_channels == channels and stride == 1:
        return M.Identity()
    conv = M.Conv2d(in_channels, channels, 1, stride, bias=False)
    return M.Sequential(conv, norm(channels))


def initialise(model: M.Module, zero_init_residual: bool = False) -> None:
    """Draw the weights: He et al. (arXiv:1502.01852) for convolutions, uniform for the classifier.

    Normalisation layers already start at one and zero.
    """
    for module in model.modules():
        if isinstance(module, M.Conv2d):
            M.init.msra_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, M.Linear):
            bound = 1 / math.sqrt(module.in_features)
            M.init.uniform_(module.weight, -bound, bound)
            M.init.uniform_(module.bias, -bound, bound)
    if zero_init_residual:
        for module in model.modules():
            if hasattr(module, "last_norm"):
                M.init.zeros_(module.last_norm.weight)


@accepts_pretrained
def resnet18(**kwargs) -> ResNet:
    """ResNet-18: basic blocks, 11.7 M parameters, 1.8 G multiply-adds at 224 px."""
    return ResNet(BasicBlock, STAGES[18], **kwargs)


@accepts_pretrained
def resnet34(**kwargs) -> ResNet:
    """ResNet-34: basic blocks, 21.8 M parameters, 3.7 G multiply-adds at 224 px."""
    return ResNet(BasicBlock, STAGES[34], **kwargs)


@accepts_pretrained
def resnet50(**kwargs) -> ResNet:
    """ResNet-50: bottlenecks, 25.6 M parameters, 4.1 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[50], **kwargs)


@accepts_pretrained
def resnet101(**kwargs) -> ResNet:
    """ResNet-101: bottlenecks, 44.5 M parameters, 7.8 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[101], **kwargs)


@accepts_pretrained
def resnet152(**kwargs) -> ResNet:
    """ResNet-152: bottlenecks, 60.2 M parameters, 11.5 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[152], **kwargs)


@accepts_pretrained
def resnext50_32x4d(**kwargs) -> ResNet:
    """ResNeXt-50 32x4d: 32 groups of width 4, 25.0 M parameters, 4.2 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[50], groups=32, width_per_group=4, **kwargs)


@accepts_pretrained
def resnext101_32x8d(**kwargs) -> ResNet:
    """ResNeXt-101 32x8d: 32 groups of width 8, 88.8 M parameters, 16.4 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=8, **kwargs)


@accepts_pretrained
def wide_resnet50_2(**kwargs) -> ResNet:
    """Wide ResNet-50-2: inner width doubled, 68.9 M parameters, 11.4 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[50], width_per_group=128, **kwargs)


@accepts_pretrained
def wide_resnet101_2(**kwargs) -> ResNet:
    """Wide ResNet-101-2: inner width doubled, 126.9 M parameters, 22.8 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], width_per_group=128, **kwargs)
