"""Residual blocks, what they are made of, and stages of them.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv:1512.03385);
He et al., "Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019
(arXiv:1812.01187), section 4; Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016
(arXiv:1603.09382). A bottleneck carries its stride on the 3x3 convolution (the second of these
papers calls that ResNet-B); the first has it on the first 1x1.
"""

import math
from typing import Callable, List, Optional, Sequence

import megengine.module as M
import megengine.random as R
from megengine import Tensor

from ..ops.plain import Layer
from .complexity import Cost

Norm = Callable[[int], M.Module]  # channels -> normalisation layer


class BasicBlock(Layer):
    """Two 3x3 convolutions and a shortcut (He et al., Figure 5, left).

    ``(N, in, H, W)`` -> 3x3/stride, BN, ReLU -> 3x3, BN -> + shortcut, ReLU
    -> ``(N, channels, H/stride, W/stride)``

    The shortcut is the identity, or ``projection`` where the shape changes. ``drop_path`` is the
    probability that DropPath leaves only the shortcut.
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
            raise ValueError("BasicBlock has no groups and no width: use Bottleneck for those")
        first = first_dilation or dilation
        self.conv1 = conv3x3(in_channels, channels, stride, dilation=first)
        self.bn1 = norm(channels)
        self.conv2 = conv3x3(channels, channels, dilation=dilation)
        self.bn2 = norm(channels)
        self.downsample = projection(in_channels, channels, stride, norm, avg_down)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x, shortcut = self.ops.fork(x)
        out = self.ops.conv_norm(self.conv1, self.bn1, x, relu=True)
        return end_block(self, self.conv2, self.bn2, out, self.downsample(shortcut))

    def complexity(self, cost: Cost) -> None:
        shortcut = cost.branch()
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2)
        cost.join(shortcut.sequence(self.downsample)).relu()

    @property
    def last_layer(self) -> M.Module:
        """What ends the residual branch."""
        return self.bn2


class Bottleneck(Layer):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (He et al., Figure 5, right).

    ``(N, in, H, W)`` -> 1x1, BN, ReLU -> 3x3/stride (``groups``), BN, ReLU -> 1x1, BN
    -> + shortcut, ReLU -> ``(N, 4 channels, H/stride, W/stride)``

    The inner width is ``channels * base_width / 64 * groups``: ResNeXt-50 32x4d has
    ``groups=32, base_width=4``, a Wide ResNet ``base_width=128``. Shortcut and ``drop_path`` are
    those of BasicBlock.
    """

    expansion = 4
    stride_first = False

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
        first, second = (stride, 1) if self.stride_first else (1, stride)
        self.conv1 = M.Conv2d(in_channels, width, 1, first, bias=False)
        self.bn1 = norm(width)
        self.conv2 = conv3x3(width, width, second, groups, first_dilation or dilation)
        self.bn2 = norm(width)
        self.conv3 = M.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.downsample = projection(in_channels, out_channels, stride, norm, avg_down)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x, shortcut = self.ops.fork(x)
        out = self.ops.conv_norm(self.conv1, self.bn1, x, relu=True)
        out = self.ops.conv_norm(self.conv2, self.bn2, out, relu=True)
        return end_block(self, self.conv3, self.bn3, out, self.downsample(shortcut))

    def complexity(self, cost: Cost) -> None:
        shortcut = cost.branch()
        cost.conv(self.conv1).norm(self.bn1).relu()
        cost.conv(self.conv2).norm(self.bn2).relu()
        cost.conv(self.conv3).norm(self.bn3)
        cost.join(shortcut.sequence(self.downsample)).relu()

    @property
    def last_layer(self) -> M.Module:
        """What ends the residual branch."""
        return self.bn3


class StrideFirstBottleneck(Bottleneck):
    """Bottleneck whose stride is on the first 1x1 convolution, as in the first paper."""

    stride_first = True


def end_block(block: Layer, conv: M.Module, norm: M.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """``relu(drop_path(norm(conv(x))) + shortcut)``."""
    if block.drop_path.active:
        out = block.drop_path(block.ops.conv_norm(conv, norm, x))
        return block.ops.add(out, shortcut, relu=True)
    return block.ops.conv_norm(conv, norm, x, shortcut, relu=True)


class DropPath(M.Module):
    """Stochastic depth (Huang et al., section 3): in training, each image loses the branch.

    ``(N, ...)`` -> the same shape. In training every image's values become zero with probability
    ``rate`` and are divided by ``1 - rate`` otherwise, so that their expectation stays; in
    evaluation nothing happens. The paper multiplies at test time instead. The draws are
    ``megengine.random``'s, so its seed fixes them.
    """

    def __init__(self, rate: float = 0.0):
        super().__init__()
        self.rate = checked_rate(rate)

    @property
    def active(self) -> bool:
        return self.training and self.rate > 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.active:
            return x
        keep = 1 - self.rate
        kept = R.uniform(size=(x.shape[0],) + (1,) * (x.ndim - 1)) < keep
        return x * (kept.astype(x.dtype) / keep)


class ConvNorms(M.Sequential, Layer):
    """Layers in order, of which each convolution is followed by a normalisation, if by anything."""

    def forward(self, x: Tensor) -> Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, M.Conv2d) or not layers:
                x = self.ops.conv(layer, x) if isinstance(layer, M.Conv2d) else layer(x)
                continue
            norm = layers.pop(0)
            relu = bool(layers) and isinstance(layers[0], M.ReLU)
            x = self.ops.conv_norm(layer, norm, x, relu=relu)
            del layers[: int(relu)]
        return x


class MaxPool3x3(M.MaxPool2d, Layer):
    """3x3/2 max-pool: ``(N, C, H, W)`` -> ``(N, C, ceil(H/2), ceil(W/2))``."""

    def __init__(self):
        super().__init__(kernel_size=3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.max_pool(x, 3, 2, ((1, 1), (1, 1)))


class HalvingAvgPool(Layer):
    """The mean over each 2x2 square, or over what an odd map has of it at its last row and column.

    ``(N, C, H, W)`` -> ``(N, C, ceil(H/2), ceil(W/2))``
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.ops.halve(x)

    def complexity(self, cost: Cost) -> None:
        cost.halving_pool()


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


def inner_width(channels: int, groups: int, base_width: int) -> int:
    """Channels of a bottleneck's 3x3 convolution."""
    return int(channels * (base_width / 64.0)) * groups


def projection(
    in_channels: int,
    channels: int,
    stride: int,
    norm: Optional[Norm],
    avg_down: bool = False,
) -> M.Module:
    """The shortcut: the identity where shapes agree, else 1x1/stride, BN (option B).

    With ``avg_down`` the mean over 2x2 pixels takes over the stride, so that the 1x1 convolution
    does not ignore three pixels of four (ResNet-D, Bag of Tricks, section 4.2). ``norm`` None
    leaves the normalisation out.

    Raises:
        ValueError: for ``avg_down`` with a stride other than 1 and 2.
    """
    if in_channels == channels and stride == 1:
        return M.Identity()
    layers = []
    if avg_down:
        if stride not in (1, 2):
            raise ValueError(f"avg_down needs a stride of 1 or 2, got {stride}")
        # An identity holds the place, so that parameters have the same names at both strides.
        layers.append(HalvingAvgPool() if stride == 2 else M.Identity())
        stride = 1
    layers.append(M.Conv2d(in_channels, channels, 1, stride, bias=False))
    if norm is not None:
        layers.append(norm(channels))
    return ConvNorms(*layers)


def build_stages(
    block: Callable[..., M.Module],
    widths: Sequence[int],
    depths: Sequence[int],
    in_channels: int,
    dilate: Optional[Sequence[bool]] = None,
    drop_path: float = 0.0,
    **options: object,
) -> List[M.Sequential]:
    """Stages of residual blocks; each stage but the first halves the map in its first block.

    Args:
        block: a class with ``expansion`` that takes ``(in_channels, channels, stride)`` and
            ``dilation``, ``first_dilation``, ``drop_path`` and ``options`` by keyword.
        widths: ``channels`` of the blocks in each stage.
        depths: blocks in each stage.
        in_channels: channels that reach the first stage.
        dilate: for each stage after the first, whether to dilate instead of halving the map.
        drop_path: see ``drop_path_rates``.

    Raises:
        ValueError: when ``dilate`` has another length or ``drop_path`` is no probability.
    """
    dilate = (False, *(dilate or (False,) * (len(widths) - 1)))
    if len(dilate) != len(widths):
        raise ValueError(
            f"replace_stride_with_dilation needs {len(widths) - 1} elements, "
            f"one for each stage after the first, got {dilate[1:]}"
        )
    rates = iter(drop_path_rates(drop_path, sum(depths)))
    dilation = 1
    stages = []
    for index, (channels, depth) in enumerate(zip(widths, depths)):
        stride = 1 if index == 0 or dilate[index] else 2
        first_dilation = dilation  # what follows the removed stride sees a finer grid
        dilation *= 2 if dilate[index] else 1
        stage = []
        for position in range(depth):
            stage.append(
                block(
                    in_channels,
                    channels,
                    stride if position == 0 else 1,
                    dilation=dilation,
                    first_dilation=first_dilation if position == 0 else None,
                    drop_path=next(rates),
                    **options,
                )
            )
            in_channels = channels * block.expansion
        stages.append(M.Sequential(*stage))
    return stages


def drop_path_rates(highest: float, blocks: int) -> List[float]:
    """Each block's rate: a straight line from 0 at the first to ``highest`` at the last.

    This is the linear decay rule of Huang et al., section 3, as timm and MMPreTrain have it; in
    the paper the line starts one block earlier, so that its first block has ``highest / blocks``.

    Raises:
        ValueError: unless 0 <= ``highest`` < 1.
    """
    checked_rate(highest)
    return [highest * index / max(blocks - 1, 1) for index in range(blocks)]


def checked_rate(rate: float) -> float:
    """``rate`` itself.

    Raises:
        ValueError: unless 0 <= ``rate`` < 1.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"drop_path must be at least 0 and less than 1, got {rate}")
    return rate


def initialise(model: M.Module, zero_init_residual: bool = False) -> None:
    """Draw the weights: He et al. (arXiv:1502.01852) for convolutions, uniform for the classifier.

    Normalisation layers already start at one and zero. ``zero_init_residual`` starts each block's
    ``last_layer`` at zero.
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
            if hasattr(module, "last_layer"):
                M.init.zeros_(module.last_layer.weight)
