"""Small networks of every family, trained on nothing but with statistics that matter."""

import megengine as mge
import megengine.module as M
import numpy as np

from official.vision.classification.ops.plain import Layer
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet import cifar, model, preact
from official.vision.classification.zoo.trained import Network, PretrainedConfig
from tests.vision.classification.resnet.reference import randomise_statistics

LAYERS = (1, 2, 1, 1)
DILATED = {"replace_stride_with_dilation": (False, True, True)}


class UnevenShortcut(Layer):
    """A shortcut of option A as no network has it: more new channels after the old than before."""

    def __init__(self):
        super().__init__()
        self.fc = M.Linear(6, 5)

    def forward(self, x):
        return self.ops.linear(self.fc, self.ops.mean(self.ops.subsample(x, 3, 1, 2)))


def resnet(block, **options):
    return lambda: model.ResNet(block, LAYERS, 5, **options)


FAMILIES = {
    "v1": resnet(model.BasicBlock),
    "v1-bottleneck": resnet(model.Bottleneck),
    "v1-dilated": resnet(model.Bottleneck, **DILATED),
    "v1-drop-path": resnet(model.BasicBlock, drop_path=0.5),
    "v1c": resnet(model.Bottleneck, stem="deep"),
    "v1d": resnet(model.Bottleneck, stem="deep", avg_down=True),
    "resnext": resnet(model.Bottleneck, groups=32, width_per_group=4),
    "wide": resnet(model.Bottleneck, width_per_group=128),
    "v2": lambda: preact.PreActResNet(LAYERS, 5),
    "v2-paper": lambda: preact.PreActResNet(LAYERS, 5, paper_form=True),
    "cifar": lambda: cifar.CifarResNet(2, 5),
    "cifar-stem": resnet(model.BasicBlock, stem="3x3"),
    "uneven-shortcut": UnevenShortcut,
}
# Maps of 18x25, 9x13, 5x7, 3x4 and 2x2 pixels, and of 9x16, 5x8, 3x4 and 2x2: odd and even ones
# meet every layer that pads by them.
CASES = [(name, (35, 50)) for name in FAMILIES]
CASES += [(name, (17, 32)) for name in ("v1d", "v2", "v2-paper", "cifar")]


def network_of(build, size=(33, 33), **options):
    """The same one every time."""
    mge.random.seed(0)
    built = randomise_statistics(build(), seed=1)
    built.eval()
    preprocess = Preprocess(resize=size, crop=None, **options)
    classes = tuple(f"n{index}" for index in range(built.fc.out_features))
    config = PretrainedConfig(
        preprocess, classes, arch="resnet18", num_classes=built.fc.out_features
    )
    return Network(built, config)


def images(count, size, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 3, *size)).astype(np.float32)
