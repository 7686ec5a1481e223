"""ResNet, its forms C and D, ResNeXt and Wide ResNet for ImageNet-sized images.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385);
He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019
(arXiv:1812.01187), section 4.2; Xie et al., "Aggregated Residual Transformations for Deep Neural
Networks", CVPR 2017 (arXiv:1611.05431); Zagoruyko and Komodakis, "Wide Residual Networks", BMVC
2016 (arXiv:1605.07146). A bottleneck carries its stride on the 3x3 convolution, as every
published weight file of the three projects this repository answers to expects ("v1.5",
ResNet-B); the first paper has it on the first 1x1, which weights of Keras, Caffe2 and MSRA need
(v1a).

Names, arguments and ``extract_features`` are those of MegEngine/Models, so that code written
against its ``model.py`` runs on this one.
"""

from typing import Any, Dict, Optional, Sequence, Tuple, Type, Union

import megengine.module as M
from megengine import Tensor

from ..ops.plain import Layer, whole
from .blocks import (
    BasicBlock,
    Bottleneck,
    ConvNorms,
    MaxPool3x3,
    Norm,
    StrideFirstBottleneck,
    build_stages,
    conv3x3,
    initialise,
)
from .complexity import Cost
from .pretrained import accepts_pretrained

# Blocks per stage of every depth: He et al., Table 1, and for 200 Table 1 of their second paper
# (arXiv:1603.05027). Those of 10, 14, 26 and of 200-D are timm's: 10 and 18 have basic blocks, 14
# and 26 as many bottlenecks.
STAGES = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}

# Channels after each of a deep stem's three convolutions: ResNet-C's (Bag of Tricks, section 4.2),
# GluonCV's "s" networks', and those of timm's "t" networks.
DEEP_STEMS = {"deep": (32, 32, 64), "wide": (64, 64, 128), "tiered": (24, 32, 64)}


class ResNet(Layer):
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
        stem: ``"7x7"``; ``"deep"`` for 3x3/2 to 32, 3x3 to 32 and 3x3 to 64 channels in its
            place, with BN and ReLU between them (ResNet-C); ``"wide"`` or ``"tiered"`` for the
            same with other channels (``DEEP_STEMS``); or ``"3x3"`` for 3x3 at stride 1 without
            max-pool, for small images: strides are then 1, 2, 4, 8.
        avg_down: let a 2x2 mean carry the stride in projection shortcuts (ResNet-D); where
            dilation replaces the stride there is no mean.
        drop_path: DropPath's rate in the last block; it rises linearly from 0 in the first.

    Raises:
        ValueError: for arguments outside of what is said here.
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
        stem: str = "7x7",
        avg_down: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.conv1 = stem_convolutions(stem, in_channels, norm)
        channels = DEEP_STEMS.get(stem, (64,))[-1]
        self.bn1 = norm(channels)
        self.maxpool = M.Identity() if stem == "3x3" else MaxPool3x3()
        self.layer1, self.layer2, self.layer3, self.layer4 = build_stages(
            block,
            (64, 128, 256, 512),
            layers,
            in_channels=channels,
            dilate=replace_stride_with_dilation,
            drop_path=drop_path,
            groups=groups,
            base_width=width_per_group,
            norm=norm,
            avg_down=avg_down,
        )
        self.fc = M.Linear(512 * block.expansion, num_classes)
        initialise(self, zero_init_residual)

    def stem(self, x: Tensor) -> Tensor:
        """What reaches layer1."""
        return self.maxpool(self.ops.conv_norm(self.conv1, self.bn1, x, relu=True))

    @whole
    def extract_features(self, x: Tensor) -> Dict[str, Tensor]:
        """Every stage's output by name: ``stem, res2, res3, res4, res5``."""
        features = {}
        features["stem"] = x = self.stem(x)
        features["res2"] = x = self.layer1(x)
        features["res3"] = x = self.layer2(x)
        features["res4"] = x = self.layer3(x)
        features["res5"] = self.layer4(x)
        return features

    def extract_feat(self, x: Tensor) -> Tuple[Tensor]:
        """The pooled feature, ``(N, C)``, in a tuple as MMPreTrain returns it."""
        return (self.ops.mean(self.extract_features(x)["res5"]),)

    @whole
    def forward(self, x: Tensor) -> Tensor:
        (feature,) = self.extract_feat(x)
        return self.ops.linear(self.fc, feature)

    def stem_complexity(self, cost: Cost) -> None:
        cost.sequence(self.conv1).norm(self.bn1).relu().sequence(self.maxpool)

    def features_complexity(self, cost: Cost) -> None:
        self.stem_complexity(cost)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                block.complexity(cost)

    def complexity(self, cost: Cost) -> None:
        self.features_complexity(cost)
        cost.global_pool().linear(self.fc)


def stem_convolutions(stem: str, in_channels: int, norm: Norm) -> M.Module:
    """What precedes the stem's last BN and ReLU: ``(N, in_channels, H, W)`` -> ``(N, 64, ...)``.

    A ``"wide"`` stem has 128 channels in place of 64.

    Raises:
        ValueError: for an unknown ``stem``.
    """
    if stem == "7x7":
        return M.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
    if stem == "3x3":
        return conv3x3(in_channels, 64)
    if stem in DEEP_STEMS:
        first, second, third = DEEP_STEMS[stem]
        return ConvNorms(
            *(conv3x3(in_channels, first, stride=2), norm(first), M.ReLU()),
            *(conv3x3(first, second), norm(second), M.ReLU()),
            conv3x3(second, third),
        )
    raise ValueError(f"stem must be '7x7', '3x3', 'deep', 'wide' or 'tiered', got {stem!r}")


@accepts_pretrained
def resnet18(**kwargs: Any) -> ResNet:
    """ResNet-18: basic blocks, 11.7 M parameters, 1.8 G multiply-adds at 224 px."""
    return ResNet(BasicBlock, STAGES[18], **kwargs)


@accepts_pretrained
def resnet34(**kwargs: Any) -> ResNet:
    """ResNet-34: basic blocks, 21.8 M parameters, 3.7 G multiply-adds at 224 px."""
    return ResNet(BasicBlock, STAGES[34], **kwargs)


@accepts_pretrained
def resnet50(**kwargs: Any) -> ResNet:
    """ResNet-50: bottlenecks, 25.6 M parameters, 4.1 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[50], **kwargs)


@accepts_pretrained
def resnet101(**kwargs: Any) -> ResNet:
    """ResNet-101: bottlenecks, 44.5 M parameters, 7.8 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[101], **kwargs)


@accepts_pretrained
def resnet152(**kwargs: Any) -> ResNet:
    """ResNet-152: bottlenecks, 60.2 M parameters, 11.5 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[152], **kwargs)


@accepts_pretrained
def resnext50_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-50 32x4d: 32 groups of width 4, 25.0 M parameters, 4.2 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[50], groups=32, width_per_group=4, **kwargs)


@accepts_pretrained
def resnext50d_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-50-D 32x4d: form D of ResNeXt-50, 25.0 M parameters, 4.5 G multiply-adds."""
    return ResNet(
        Bottleneck, STAGES[50], groups=32, width_per_group=4, stem="deep", avg_down=True, **kwargs
    )


@accepts_pretrained
def resnext101_32x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 32x4d: 32 groups of width 4, 44.2 M parameters, 8.0 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=4, **kwargs)


@accepts_pretrained
def resnext101_64x4d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 64x4d: 64 groups of width 4, 83.5 M parameters, 15.5 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=64, width_per_group=4, **kwargs)


@accepts_pretrained
def resnext101_32x8d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 32x8d: 32 groups of width 8, 88.8 M parameters, 16.4 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=8, **kwargs)


@accepts_pretrained
def resnext101_32x16d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 32x16d: 32 groups of width 16, 194.0 M parameters, 36.2 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=16, **kwargs)


@accepts_pretrained
def resnext101_32x32d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 32x32d: 32 groups of width 32, 468.5 M parameters, 87.1 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=32, **kwargs)


@accepts_pretrained
def resnext101_32x48d(**kwargs: Any) -> ResNet:
    """ResNeXt-101 32x48d: 32 groups of width 48, 828.4 M parameters, 153.3 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], groups=32, width_per_group=48, **kwargs)


@accepts_pretrained
def wide_resnet50_2(**kwargs: Any) -> ResNet:
    """Wide ResNet-50-2: inner width doubled, 68.9 M parameters, 11.4 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[50], width_per_group=128, **kwargs)


@accepts_pretrained
def wide_resnet101_2(**kwargs: Any) -> ResNet:
    """Wide ResNet-101-2: inner width doubled, 126.9 M parameters, 22.8 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], width_per_group=128, **kwargs)


@accepts_pretrained
def resnetv1a50(**kwargs: Any) -> ResNet:
    """ResNet-50-A: stride on the first 1x1, 25.6 M parameters, 3.9 G multiply-adds at 224 px."""
    return ResNet(StrideFirstBottleneck, STAGES[50], **kwargs)


@accepts_pretrained
def resnetv1a101(**kwargs: Any) -> ResNet:
    """ResNet-101-A: stride on the first 1x1, 44.5 M parameters, 7.6 G multiply-adds at 224 px."""
    return ResNet(StrideFirstBottleneck, STAGES[101], **kwargs)


@accepts_pretrained
def resnetv1a152(**kwargs: Any) -> ResNet:
    """ResNet-152-A: stride on the first 1x1, 60.2 M parameters, 11.3 G multiply-adds at 224 px."""
    return ResNet(StrideFirstBottleneck, STAGES[152], **kwargs)


@accepts_pretrained
def resnetv1c50(**kwargs: Any) -> ResNet:
    """ResNet-50-C: deep stem, 25.6 M parameters, 4.3 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[50], stem="deep", **kwargs)


@accepts_pretrained
def resnetv1c101(**kwargs: Any) -> ResNet:
    """ResNet-101-C: deep stem, 44.6 M parameters, 8.0 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[101], stem="deep", **kwargs)


@accepts_pretrained
def resnetv1c152(**kwargs: Any) -> ResNet:
    """ResNet-152-C: deep stem, 60.2 M parameters, 11.8 G multiply-adds at 224 px."""
    return ResNet(Bottleneck, STAGES[152], stem="deep", **kwargs)


@accepts_pretrained
def resnetv1d18(**kwargs: Any) -> ResNet:
    """ResNet-18-D: deep stem, averaging shortcuts, 11.7 M parameters, 2.1 G multiply-adds."""
    return ResNet(BasicBlock, STAGES[18], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d26(**kwargs: Any) -> ResNet:
    """ResNet-26-D: deep stem, averaging shortcuts, 16.0 M parameters, 2.6 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[26], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d34(**kwargs: Any) -> ResNet:
    """ResNet-34-D: deep stem, averaging shortcuts, 21.8 M parameters, 3.9 G multiply-adds."""
    return ResNet(BasicBlock, STAGES[34], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d50(**kwargs: Any) -> ResNet:
    """ResNet-50-D: deep stem, averaging shortcuts, 25.6 M parameters, 4.3 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[50], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d101(**kwargs: Any) -> ResNet:
    """ResNet-101-D: deep stem, averaging shortcuts, 44.6 M parameters, 8.0 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d152(**kwargs: Any) -> ResNet:
    """ResNet-152-D: deep stem, averaging shortcuts, 60.2 M parameters, 11.8 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[152], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1d200(**kwargs: Any) -> ResNet:
    """ResNet-200-D: deep stem, averaging shortcuts, 64.7 M parameters, 15.2 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[200], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv1s50(**kwargs: Any) -> ResNet:
    """ResNet-50-S: deep stem of twice the width, 25.7 M parameters, 5.4 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[50], stem="wide", **kwargs)


@accepts_pretrained
def resnetv1s101(**kwargs: Any) -> ResNet:
    """ResNet-101-S: deep stem of twice the width, 44.7 M parameters, 9.2 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[101], stem="wide", **kwargs)


@accepts_pretrained
def resnetv1s152(**kwargs: Any) -> ResNet:
    """ResNet-152-S: deep stem of twice the width, 60.3 M parameters, 12.9 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[152], stem="wide", **kwargs)


@accepts_pretrained
def resnet10t(**kwargs: Any) -> ResNet:
    """timm's ResNet-10-T: tiered stem, form D, 5.4 M parameters, 1.1 G multiply-adds."""
    return ResNet(BasicBlock, STAGES[10], stem="tiered", avg_down=True, **kwargs)


@accepts_pretrained
def resnet14t(**kwargs: Any) -> ResNet:
    """timm's ResNet-14-T: tiered stem, form D, 10.1 M parameters, 1.7 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[14], stem="tiered", avg_down=True, **kwargs)


@accepts_pretrained
def resnet26(**kwargs: Any) -> ResNet:
    """timm's ResNet-26: bottlenecks, two in each stage, 16.0 M parameters, 2.3 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[26], **kwargs)


@accepts_pretrained
def resnet26t(**kwargs: Any) -> ResNet:
    """timm's ResNet-26-T: tiered stem, form D, 16.0 M parameters, 2.6 G multiply-adds."""
    return ResNet(Bottleneck, STAGES[26], stem="tiered", avg_down=True, **kwargs)
