"""What timm and torchvision say of their published weights: see ``make_configurations.py``."""

import gzip
import json
from pathlib import Path
from typing import Any, Dict, List

FILE = Path(__file__).resolve().parent / "published.json.gz"
OTHER_CLASSES = ("resnet50.bamboo",)  # 115,217 of them, which are not published as names


def load() -> Dict[str, Any]:
    """``timm`` has ``rows`` and ``results``, ``torchvision`` has ``rows``."""
    return json.loads(gzip.decompress(FILE.read_bytes()))


def names() -> List[str]:
    """timm's names of ImageNet weights of networks that are here; torchvision's have one, too."""
    return [name for name in load()["timm"]["rows"] if name not in OTHER_CLASSES]
