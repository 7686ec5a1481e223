"""Entry points of ``megengine.hub``: everything public in this file is meant to be loaded.

import megengine.hub
model = megengine.hub.load("owner/repo:main", "resnet50", pretrained=True)
"""

import sys as __sys
from pathlib import Path as __Path
from typing import List as __List

dependencies = ["megengine", "numpy", "requests", "tqdm"]

# Other repositories, MegEngine/Models first of all, and other branches of this one have a package
# of the same name. What is loaded of theirs is put aside while ours is imported, and ours makes way
# afterwards, so that each gets its own code in one process.


def __names() -> __List[str]:
    return [name for name in list(__sys.modules) if name.split(".")[0] == "official"]


__ours = __Path(__file__).resolve().parent / "official"
__loaded = getattr(__sys.modules.get("official"), "__path__", ())
__at_home = __ours in [__Path(path).resolve() for path in __loaded]  # not through the hub
__aside = {} if __at_home else {name: __sys.modules.pop(name) for name in __names()}

try:
    from official.vision.classification.ops.accelerate import accelerate
    from official.vision.classification.prediction.inference import inference_model
    from official.vision.classification.resnet import ARCHS as __archs
    from official.vision.classification.resnet.cifar import CifarBlock, CifarResNet
    from official.vision.classification.resnet.model import BasicBlock, Bottleneck, ResNet
    from official.vision.classification.resnet.preact import PreActBottleneck, PreActResNet
    from official.vision.classification.zoo.models import get_model, list_models
finally:
    if not __at_home:
        for __name in __names():
            del __sys.modules[__name]
        __sys.modules.update(__aside)

globals().update(__archs)
