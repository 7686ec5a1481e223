"""How images are prepared for weights whose file does not say it."""

from dataclasses import replace
from typing import Optional, Tuple

from ..preprocess import PRESETS, Preprocess
from .models import image_size
from .rows import Row
from .weights import Weights

# What is usual where a file's names come from; else it goes by its format.
_USUAL = {
    "mmpretrain": PRESETS["mmpretrain"],
    "mindcv": PRESETS["mmpretrain"],  # both resize with OpenCV
    "pycls": PRESETS["megengine"],  # OpenCV's images as they are, too
    "detectron2": PRESETS["megengine"].override({"std": None}),
    # keras.applications' "caffe" mode; image_dataset_from_directory resizes like this
    "keras": PRESETS["megengine"].override({"mean": [103.939, 116.779, 123.68], "std": None}),
    "caffe2": PRESETS["megengine"].override({"mean": [102.9801, 115.9465, 122.7717], "std": None}),
    "timm_v2": PRESETS["torchvision"].override(
        {"mean": [127.5] * 3, "std": [127.5] * 3, "interpolation": "bicubic"}
    ),
}


def preprocess_of(weights: Weights, row: Optional[Row], arch: str) -> Tuple[Preprocess, str]:
    """How the images are prepared, and how that is known."""
    if weights.preprocess:
        return weights.preprocess, "file"
    if row:
        return row.preprocess, "row"
    megengines = weights.format == "megengine-pickle"
    usual = PRESETS["megengine" if megengines else "torchvision"]
    return sized(_USUAL.get(weights.scheme, usual), arch), "assumed"


def sized(preprocess: Preprocess, arch: str) -> Preprocess:
    """The same for images of the size that ``arch`` is made for."""
    size = image_size(arch)
    return preprocess if preprocess.crop == size else replace(preprocess, resize=size, crop=size)
