"""The networks and their published figures, which the list in official/ is compared with."""

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
}
