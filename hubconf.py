"""Entry points of ``megengine.hub``: everything public in this file is meant to be loaded.

import megengine.hub
model = megengine.hub.load("owner/repo:main", "resnet50", pretrained=True)
"""

import sys as __sys
from pathlib import Path as __Path

dependencies = ["megengine", "numpy", "cv2", "requests", "tqdm"]

# Other repositories, MegEngine/Models first of all, have a package of the same name. Theirs is put
# aside while ours is imported, so that neither gets the other's code in one process.
__ours = __Path(__file__).resolve().parent / "official"
__aside = {}
__loaded = getattr(__sys.modules.get("official"), "__path__", ())
if __ours not in [__Path(path).resolve() for path in __loaded]:
    for __name in [name for name in __sys.modules if name.split(".")[0] == "official"]:
        __aside[__name] = __sys.modules.pop(__name)

from official.vision.classification.resnet.cifar import (
    resnet20_cifar,
    resnet32_cifar,
    resnet44_cifar,
    resnet56_cifar,
    resnet110_cifar,
)
from official.vision.classification.resnet.model import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
    resnet101,
    resnet152,
    resnext50_32x4d,
    resnext101_32x8d,
    wide_resnet50_2,
    wide_resnet101_2,
)
from official.vision.classification.zoo.models import get_model, list_models

if __aside:
    for __name in [name for name in __sys.modules if name.split(".")[0] == "official"]:
        del __sys.modules[__name]
    __sys.modules.update(__aside)
