"""Record the logits of pycls' and detectron2's ResNets as fixtures of these names.

    git clone https://github.com/facebookresearch/pycls (main, 5719de6)
    git clone https://github.com/facebookresearch/detectron2 (main, 02b5c4e2)
    pip install torch==2.13.0 numpy==2.2.6 fvcore iopath yacs omegaconf termcolor
    PYTHONPATH=pycls:detectron2 python tests/oracles/make_facebook.py

(Python 3.11, CPU. What is compiled in detectron2, and what pycls sends jobs with, is left out.)
"""

import sys
from types import ModuleType

import torch
from torch_oracle import SMALL_SIZES, declare_torchvision_ops, record


class Missing(ModuleType):
    """In place of a module of which nothing is called."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"Checkpointable": object})


def pycls_networks() -> None:
    sys.modules["submitit"] = Missing("submitit")
    from pycls.core.config import cfg
    from pycls.models.resnet import ResNet

    cfg.merge_from_list(
        ["MODEL.DEPTH", 50, "MODEL.NUM_CLASSES", 20, "TRAIN.DATASET", "imagenet"]
        + ["TEST.DATASET", "imagenet"]
        + ["RESNET.TRANS_FUN", "bottleneck_transform", "RESNET.STRIDE_1X1", False]
    )
    record("pycls_resnet50", "resnet50", "pycls ResNet-50, 5719de6", ResNet(), SMALL_SIZES)
    cfg.merge_from_list(["RESNET.NUM_GROUPS", 32, "RESNET.WIDTH_PER_GROUP", 4])
    name = "pycls_resnext50_32x4d"
    record(name, "resnext50_32x4d", "pycls ResNeXt-50, 5719de6", ResNet(), SMALL_SIZES)


def detectron2_networks() -> None:
    declare_torchvision_ops()
    sys.modules["detectron2._C"] = Missing("detectron2._C")
    from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, BottleneckBlock, ResNet

    class Logits(ResNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)["linear"]

    for depth, block, first in (
        (18, BasicBlock, False),
        (50, BottleneckBlock, False),
        (50, BottleneckBlock, True),
    ):
        settings = {"stride_in_1x1": first} if block is BottleneckBlock else {}
        stages = ResNet.make_default_stages(depth, block_class=block, norm="BN", **settings)
        model = Logits(BasicStem(), stages, num_classes=20)
        arch = f"resnet{'v1a' if first else ''}{depth}"
        source = f"detectron2 ResNet-{depth}, stride_in_1x1={first}, 02b5c4e2"
        record(f"detectron2_{arch}", arch, source, model, SMALL_SIZES)


if __name__ == "__main__":
    pycls_networks()
    detectron2_networks()
