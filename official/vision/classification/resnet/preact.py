"""ResNet v2: residual units whose shortcut carries the sum itself from unit to unit.

Source: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016 (arXiv:1603.05027).
There are three forms. MindCV's, which its published weights need, is ResNet with another block:
projections have BN, and nothing activates the last sum. The paper's (section 4 and appendix; in
the authors' code, github.com/facebookarchive/fb.resnet.torch, models/preresnet.lua) has neither
of these, and its first unit shares the stem's activation. timm's (models/resnetv2.py) is the
paper's but for the stem: max-pool comes right after the convolution, and BN and ReLU, the first
unit's own, after it. The two differ where a scale of that BN is negative.
"""

from typing import Any, Dict, Optional, Sequence, Type, Union

import megengine.module as M
from megengine import Tensor

from ..ops.plain import Layer, whole
from .blocks import DropPath, MaxPool3x3, Norm, conv3x3, inner_width, projection
from .complexity import Cost
from .model import STAGES, ResNet
from .pretrained import accepts_pretrained


class PreActBottleneck(Layer):
    """BN and ReLU before each of 1x1, 3x3 and 1x1 convolutions (He et al., Figure 4e).

    ``(N, in, H, W)`` -> BN, ReLU, 1x1 -> BN, ReLU, 3x3/stride (``groups``) -> BN, ReLU, 1x1
    -> + shortcut -> ``(N, 4 channels, H/stride, W/stride)``

    The shortcut is the input, or where the shape changes ``projection`` of what the first BN and
    ReLU made of it. Arguments are those of Bottleneck.
    """

    expansion = 4
    projection_norm = True

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
        avg_down: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        width = inner_width(channels, groups, base_width)
        out_channels = channels * self.expansion
        self.bn1: Optional[M.Module] = norm(in_channels)
        self.conv1 = M.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = norm(width)
        self.conv2 = conv3x3(width, width, stride, groups, first_dilation or dilation)
        self.bn3 = norm(width)
        self.conv3 = M.Conv2d(width, out_channels, 1, bias=False)
        after = norm if self.projection_norm else None
        self.downsample = projection(in_channels, out_channels, stride, after, avg_down)
        self.drop_path = DropPath(drop_path)

    @property
    def projects(self) -> bool:
        """Whether the shortcut has a convolution."""
        return not isinstance(self.downsample, M.Identity)

    def forward(self, x: Tensor) -> Tensor:
        ops = self.ops
        if self.projects:
            activated, shortcut = ops.fork(self.activated(x))
            shortcut = self.downsample(shortcut)
        else:
            x, shortcut = ops.fork(x)
            activated = self.activated(x)
        out = ops.conv_norm(self.conv1, self.bn2, activated, relu=True)
        out = ops.conv_norm(self.conv2, self.bn3, out, relu=True)
        return ops.add(self.drop_path(ops.conv(self.conv3, out)), shortcut)

    def activated(self, x: Tensor) -> Tensor:
        """What the first convolution sees."""
        return x if self.bn1 is None else self.ops.norm(self.bn1, x, relu=True)

    def complexity(self, cost: Cost) -> None:
        identity = cost.branch()
        if self.bn1 is not None:
            cost.norm(self.bn1).relu()
        shortcut = cost.branch().sequence(self.downsample) if self.projects else identity
        cost.conv(self.conv1).norm(self.bn2).relu()
        cost.conv(self.conv2).norm(self.bn3).relu()
        cost.conv(self.conv3).join(shortcut)

    @property
    def last_layer(self) -> M.Module:
        """What ends the residual branch.

        Here it is a convolution. With a zero scale in the BN before it no gradient would pass the
        ReLU between them, so that the branch would never learn; a last convolution of zeros
        learns from the first step (Zhang et al., "Fixup Initialization", arXiv:1901.09321).
        """
        return self.conv3


class PaperPreActBottleneck(PreActBottleneck):
    """PreActBottleneck with a projection that is a convolution alone, as the authors have it."""

    projection_norm = False


class PreActBasicBlock(Layer):
    """BN and ReLU before each of two 3x3 convolutions (He et al., Figure 1b).

    ``(N, in, H, W)`` -> BN, ReLU, 3x3/stride -> BN, ReLU, 3x3 -> + shortcut
    -> ``(N, channels, H/stride, W/stride)``

    The shortcut is the input, or where the shape changes ``projection``, without BN, of what the
    first BN and ReLU made of it. Arguments are those of BasicBlock.
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
        avg_down: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        if groups != 1 or base_width != 64:
            raise ValueError("PreActBasicBlock has no groups and no width: use PreActBottleneck")
        self.bn1 = norm(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride, dilation=first_dilation or dilation)
        self.bn2 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.downsample = projection(in_channels, channels, stride, None, avg_down)
        self.drop_path = DropPath(drop_path)

    @property
    def projects(self) -> bool:
        """Whether the shortcut has a convolution."""
        return not isinstance(self.downsample, M.Identity)

    def forward(self, x: Tensor) -> Tensor:
        ops = self.ops
        if self.projects:
            activated, shortcut = ops.fork(ops.norm(self.bn1, x, relu=True))
            shortcut = self.downsample(shortcut)
        else:
            x, shortcut = ops.fork(x)
            activated = ops.norm(self.bn1, x, relu=True)
        out = ops.conv_norm(self.conv1, self.bn2, activated, relu=True)
        return ops.add(self.drop_path(ops.conv(self.conv2, out)), shortcut)

    def complexity(self, cost: Cost) -> None:
        identity = cost.branch()
        cost.norm(self.bn1).relu()
        shortcut = cost.branch().sequence(self.downsample) if self.projects else identity
        cost.conv(self.conv1).norm(self.bn2).relu()
        cost.conv(self.conv2).join(shortcut)

    @property
    def last_layer(self) -> M.Module:
        """What ends the residual branch; see PreActBottleneck."""
        return self.conv2


class SameMaxPool2d(MaxPool3x3):
    """3x3/2 max-pool, padded as TensorFlow's and MindSpore's ``same``.

    ``(N, C, H, W)`` -> ``(N, C, ceil(H/2), ceil(W/2))``. An odd map is padded by one pixel on
    either side; an even one only at the bottom or right, where ``padding=1`` has it at the top or
    left, so that all windows lie one pixel further.
    """

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = ((size % 2, 1) for size in x.shape[2:])
        return self.ops.max_pool(x, 3, 2, (rows, columns))


class _EndsInNorm(ResNet):
    """A network whose last sum is normalised and activated by ``norm``, if there is one."""

    norm: Optional[M.Module] = None

    @whole
    def extract_features(self, x: Tensor) -> Dict[str, Tensor]:
        """Every stage's output by name: ``stem, res2, res3, res4, res5``."""
        features = super().extract_features(x)
        if self.norm is not None:
            features["res5"] = self.ops.norm(self.norm, features["res5"], relu=True)
        return features

    def features_complexity(self, cost: Cost) -> None:
        super().features_complexity(cost)
        if self.norm is not None:
            cost.norm(self.norm).relu()


class PreActResNet(_EndsInNorm):
    """ResNet of pre-activation units, in MindCV's form or the paper's.

    ``(N, in_channels, H, W)`` -> stem: 7x7/2, BN, ReLU, 3x3/2 max-pool -> ``(N, 64, H/4, W/4)``
    -> layer1..layer4 at strides 4, 8, 16, 32 (the paper's form: -> BN, ReLU) -> mean over the map
    -> ``(N, num_classes)`` logits

    The features ``res2, res3, res4`` are sums that nothing has activated yet; so is ``res5`` in
    MindCV's form.

    Args:
        layers: units in each of the four stages.
        zero_init_residual: start the last convolution of every residual branch at zero.
        paper_form: the paper's form. MindCV's otherwise.
        All others are those of ResNet.

    Raises:
        ValueError: as ResNet does.
    """

    def __init__(
        self,
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
        replace_stride_with_dilation: Optional[Sequence[bool]] = None,
        norm: Norm = M.BatchNorm2d,
        in_channels: int = 3,
        drop_path: float = 0.0,
        paper_form: bool = False,
    ):
        super().__init__(
            PaperPreActBottleneck if paper_form else PreActBottleneck,
            layers,
            num_classes,
            zero_init_residual,
            replace_stride_with_dilation=replace_stride_with_dilation,
            norm=norm,
            in_channels=in_channels,
            drop_path=drop_path,
        )
        if paper_form:
            self.layer1[0].bn1 = None  # the stem's BN and ReLU are this unit's
            self.norm = norm(512 * PaperPreActBottleneck.expansion)
        else:
            self.maxpool = SameMaxPool2d()


class TimmPreActResNet(_EndsInNorm):
    """ResNet of pre-activation units in timm's form.

    ``(N, in_channels, H, W)`` -> stem: 7x7/2, 3x3/2 max-pool -> ``(N, 64, H/4, W/4)``
    -> layer1..layer4 at strides 4, 8, 16, 32 -> BN, ReLU -> mean over the map
    -> ``(N, num_classes)`` logits

    The features ``stem, res2, res3, res4`` are what nothing has activated yet.

    Args:
        block: PreActBasicBlock or PaperPreActBottleneck.
        layers: units in each of the four stages.
        zero_init_residual: start the last convolution of every residual branch at zero.
        stem: ``"7x7"``, or one of ``DEEP_STEMS`` of ``model``.
        All others are those of ResNet.

    Raises:
        ValueError: as ResNet does, and for a stem without max-pool.
    """

    def __init__(
        self,
        block: Type[Union[PreActBasicBlock, PreActBottleneck]],
        layers: Sequence[int],
        num_classes: int = 1000,
        norm: Norm = M.BatchNorm2d,
        stem: str = "7x7",
        **kwargs: Any,
    ):
        if stem == "3x3":
            raise ValueError("the stem of timm's form has a max-pool, which '3x3' has not")
        super().__init__(block, layers, num_classes, norm=norm, stem=stem, **kwargs)
        self.bn1 = None
        self.norm = norm(512 * block.expansion)

    def stem(self, x: Tensor) -> Tensor:
        """What reaches layer1."""
        return self.maxpool(self.ops.conv(self.conv1, x))

    def stem_complexity(self, cost: Cost) -> None:
        cost.sequence(self.conv1).sequence(self.maxpool)


@accepts_pretrained
def resnetv2_50(**kwargs: Any) -> PreActResNet:
    """ResNet-50 v2: pre-activation units, 25.6 M parameters, 4.1 G multiply-adds at 224 px."""
    return PreActResNet(STAGES[50], **kwargs)


@accepts_pretrained
def resnetv2_101(**kwargs: Any) -> PreActResNet:
    """ResNet-101 v2: pre-activation units, 44.5 M parameters, 7.8 G multiply-adds at 224 px."""
    return PreActResNet(STAGES[101], **kwargs)


@accepts_pretrained
def resnetv2_18(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-18 v2 in timm's form: basic units, 11.7 M parameters, 1.8 G multiply-adds."""
    return TimmPreActResNet(PreActBasicBlock, STAGES[18], **kwargs)


@accepts_pretrained
def resnetv2_18d(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-18-D v2 in timm's form: deep stem, 11.7 M parameters, 2.1 G multiply-adds."""
    return TimmPreActResNet(PreActBasicBlock, STAGES[18], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv2_34(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-34 v2 in timm's form: basic units, 21.8 M parameters, 3.7 G multiply-adds."""
    return TimmPreActResNet(PreActBasicBlock, STAGES[34], **kwargs)


@accepts_pretrained
def resnetv2_34d(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-34-D v2 in timm's form: deep stem, 21.8 M parameters, 3.9 G multiply-adds."""
    return TimmPreActResNet(PreActBasicBlock, STAGES[34], stem="deep", avg_down=True, **kwargs)


@accepts_pretrained
def resnetv2_50_timm(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-50 v2 in timm's form: 25.5 M parameters, 4.1 G multiply-adds at 224 px."""
    return TimmPreActResNet(PaperPreActBottleneck, STAGES[50], **kwargs)


@accepts_pretrained
def resnetv2_101_timm(**kwargs: Any) -> TimmPreActResNet:
    """ResNet-101 v2 in timm's form: 44.5 M parameters, 7.8 G multiply-adds at 224 px."""
    return TimmPreActResNet(PaperPreActBottleneck, STAGES[101], **kwargs)
