"""The same networks in PyTorch, as plain as its users write them: the peer of the benchmarks.

ResNet v1 of He et al. (arXiv:1512.03385), the stride on the 3x3 convolution, and the CIFAR networks
of its section 4.2 with parameter-free shortcuts.
"""

from typing import Callable, Sequence, Type, Union

from torch import Tensor, nn
from torch.nn import functional as F


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, downsample: nn.Module):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += self.downsample(x)
        return self.relu(out)


Block = Type[Union[BasicBlock, Bottleneck]]


def projection(in_channels: int, channels: int, stride: int) -> nn.Module:
    """Option B: 1x1 convolution and normalisation where the shape changes."""
    if in_channels == channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
    )


class PadShortcut(nn.Module):
    """Option A: every second pixel, and zeros for the channels that are new."""

    def __init__(self, stride: int, new_channels: int):
        super().__init__()
        self.stride, self.new_channels = stride, new_channels

    def forward(self, x: Tensor) -> Tensor:
        half = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))


def stages(
    block: Block,
    in_channels: int,
    widths: Sequence[int],
    depths: Sequence[int],
    shortcut: Callable[[int, int, int], nn.Module],
) -> nn.Sequential:
    layers = []
    for index, (channels, depth) in enumerate(zip(widths, depths)):
        for position in range(depth):
            stride = 2 if index > 0 and position == 0 else 1
            out_channels = channels * block.expansion
            layers.append(
                block(in_channels, channels, stride, shortcut(in_channels, out_channels, stride))
            )
            in_channels = out_channels
    return nn.Sequential(*layers)


def imagenet_resnet(block: Block, depths: Sequence[int], num_classes: int = 1000) -> nn.Sequential:
    return initialised(
        nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            stages(block, 64, (64, 128, 256, 512), depths, projection),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(512 * block.expansion, num_classes),
        )
    )


def resnet18() -> nn.Sequential:
    return imagenet_resnet(BasicBlock, (2, 2, 2, 2))


def resnet50() -> nn.Sequential:
    return imagenet_resnet(Bottleneck, (3, 4, 6, 3))


def resnet20_cifar(num_classes: int = 10) -> nn.Sequential:
    def shortcut(in_channels: int, channels: int, stride: int) -> nn.Module:
        if in_channels == channels:
            return nn.Identity()
        return PadShortcut(stride, channels - in_channels)

    return initialised(
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(inplace=True),
            stages(BasicBlock, 16, (16, 32, 64), (3, 3, 3), shortcut),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64, num_classes),
        )
    )


def initialised(net: nn.Sequential) -> nn.Sequential:
    """He initialisation of the convolutions (arXiv:1502.01852)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net
