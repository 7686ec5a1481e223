"""The networks and their published figures, which the list in official/ is compared with."""

import functools
import math

from official.vision.classification.resnet import ARCHS
from official.vision.classification.resnet.complexity import complexity, without_weights

# Parameters, multiply-adds of convolutions and the classifier (in units of 1e9), and the same with
# BN, ReLU and pooling as MMPreTrain's tables count them (None: not in a table), at 224 px or, for
# CIFAR's networks, 32 px.
FACTS = {
    "resnet18": (11_689_512, 1.814, 1.822),
    "resnet34": (21_797_672, 3.664, 3.676),
    "resnet50": (25_557_032, 4.089, 4.122),
    "resnet101": (44_549_160, 7.801, 7.849),
    "resnet152": (60_192_808, 11.514, 11.581),
    "resnext50_32x4d": (25_028_904, 4.230, None),
    "resnext101_32x8d": (88_791_336, 16.414, None),
    "wide_resnet50_2": (68_883_240, 11.398, 11.441),
    "wide_resnet101_2": (126_886_696, 22.753, 22.816),
    # torchvision's modules with the strides of their 3x3 convolutions moved to the 1x1 before
    "resnetv1a50": (25_557_032, 3.858, None),
    "resnetv1a101": (44_549_160, 7.570, None),
    "resnetv1a152": (60_192_808, 11.282, None),
    "resnetv1c50": (25_576_264, 4.329, 4.364),
    "resnetv1c101": (44_568_392, 8.041, 8.092),
    "resnetv1c152": (60_212_040, 11.753, 11.823),
    "resnetv1d50": (25_576_264, 4.329, 4.365),
    "resnetv1d101": (44_568_392, 8.041, 8.093),
    "resnetv1d152": (60_212_040, 11.753, 11.824),
    "resnetv2_50": (25_553_064, 4.089, None),
    "resnetv2_101": (44_545_192, 7.801, None),
    "resnet18_cifar": (11_173_962, 0.555, 0.557),
    "resnet34_cifar": (21_282_122, 1.159, 1.162),
    "resnet50_cifar": (23_520_842, 1.298, 1.308),
    "resnet101_cifar": (42_512_970, 2.510, 2.525),
    "resnet152_cifar": (58_156_618, 3.722, 3.743),
    # He et al., section 4.2 and Table 6.
    "resnet20_cifar": (269_722, 0.0406, None),
    "resnet32_cifar": (464_154, 0.0689, None),
    "resnet44_cifar": (658_586, 0.0972, None),
    "resnet56_cifar": (853_018, 0.1255, None),
    "resnet110_cifar": (1_727_962, 0.2529, None),
    # timm's and torchvision's, from the figures of their own modules at 224 px (timm 1.0.29 and,
    # for resnet26t and resnet200d, 1.0.31; torchvision 0.29.1).
    "resnext50d_32x4d": (25_048_136, 4.470, None),
    "resnext101_32x4d": (44_177_704, 7.970, None),
    "resnext101_64x4d": (83_455_272, 15.460, None),
    "resnext101_32x16d": (194_026_792, 36.163, None),
    "resnext101_32x32d": (468_530_472, 87.107, None),
    "resnext101_32x48d": (828_411_176, 153.310, None),
    "resnetv1d18": (11_708_744, 2.054, None),
    "resnetv1d26": (16_014_408, 2.582, None),
    "resnetv1d34": (21_816_904, 3.903, None),
    "resnetv1d200": (64_693_064, 15.247, None),
    "resnetv1s50": (25_680_808, 5.444, None),
    "resnetv1s101": (44_672_936, 9.157, None),
    "resnetv1s152": (60_316_584, 12.869, None),
    "resnet10t": (5_435_488, 1.097, None),
    "resnet14t": (10_081_632, 1.677, None),
    "resnet26": (15_995_176, 2.342, None),
    "resnet26t": (16_011_872, 2.550, None),
    "resnetv2_18": (11_687_720, 1.814, None),
    "resnetv2_18d": (11_706_952, 2.054, None),
    "resnetv2_34": (21_795_880, 3.664, None),
    "resnetv2_34d": (21_815_112, 3.903, None),
    "resnetv2_50_timm": (25_549_352, 4.089, None),
    "resnetv2_101_timm": (44_541_480, 7.801, None),
}


@functools.lru_cache(maxsize=None)
def cost_of(arch, num_classes, size):
    """Parameters and multiply-adds as they are computed, and the parameters that are there."""
    with without_weights():
        network = ARCHS[arch](num_classes=num_classes)
    cost = complexity(network, size)
    return cost.params, cost.macs, count(network)


def count(network):
    """Trainable parameters, those of ``without_weights`` too."""
    values = (
        getattr(module, name, None) for module in network.modules() for name in ("weight", "bias")
    )
    return sum(math.prod(value.shape) for value in values if value is not None)
