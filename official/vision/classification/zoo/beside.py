"""What ``config.json`` and ``preprocessor_config.json`` say of the weights beside them.

transformers and timm write them on the Hugging Face hub: how images are prepared, what the classes
are called, and where a network has its strides. They are data from outside: their size is bounded,
and whatever in them is not as expected is told and leaves them unused.
"""

import json
import os
import stat
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from ..errors import UsageError
from ..preprocess import Preprocess
from ..readers.pickle_data import shown
from .said import class_list

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
MAX_BYTES = 16 << 20  # 21,843 class names take 2 MB

_RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_MAX_EDGE = 4096
_Json = Dict[str, Any]


@dataclass(frozen=True)
class Beside:
    """What is known from the files beside the weights; None for what is not.

    Args:
        stride_first: the network has its strides on the first 1x1 convolutions.
        remark: which files are used, or why one is not.
    """

    preprocess: Optional[Preprocess] = None
    classes: Optional[Tuple[str, ...]] = None
    stride_first: bool = False
    remark: str = ""


def beside(path: Path, num_classes: Optional[int]) -> Beside:
    """What the files beside the weights ``path`` say; nothing where there are none of these."""
    config = _read(path.parent / CONFIG)
    if not isinstance(config, dict):
        return Beside()
    timms = isinstance(config.get("pretrained_cfg"), dict)
    if not timms and config.get("model_type") != "resnet":
        return Beside()
    try:
        if num_classes is not None and _count(config) not in (None, num_classes):
            raise ValueError(f"it has {_count(config)} classes and the weights {num_classes}")
        classes = _classes(config, num_classes)
        known = _of_timm(config["pretrained_cfg"]) if timms else _of_transformers(path.parent)
        where = CONFIG if timms else PREPROCESSOR
        stride_first = not timms and _stride_first(config)
    except (ValueError, UsageError) as error:
        return Beside(remark=f"{CONFIG} beside it is not used: {error}")
    told = [f"the preparation of its images from {where}"] if known else []
    told += [f"the names of its classes from {CONFIG}"] if classes else []
    remark = f"takes {' and '.join(told)} beside it" if told else ""
    return Beside(known, classes, stride_first, remark)


def _read(path: Path) -> object:
    """The JSON in a regular file; None where there is none."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(number, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return None
        try:
            return json.loads(file.read(MAX_BYTES).decode("utf-8"))
        except (ValueError, RecursionError, OSError):
            return None


def _count(config: _Json) -> Optional[int]:
    for value in (config.get("num_classes"), config.get("num_labels")):
        if type(value) is int:
            return value
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else None


def _classes(config: _Json, count: Optional[int]) -> Optional[Tuple[str, ...]]:
    """timm's ``label_names``, or transformers' ``id2label`` where it is more than numbers."""
    for key in ("label_names", "id2label"):
        names = class_list(config.get(key), count) if count else None
        if names and not all(name.startswith("LABEL_") for name in names):
            return names
    return None


def _stride_first(config: _Json) -> bool:
    """Refuses networks whose tensors fit ours and that compute something else."""
    for key, usual in (("hidden_act", "relu"), ("downsample_in_first_stage", False)):
        if config.get(key, usual) != usual:
            raise ValueError(f"{key} is {shown(str(config[key]))}, which no network here has")
    return config.get("downsample_in_bottleneck", False) is True


def _of_timm(config: _Json) -> Preprocess:
    """As timm's ``data/transforms_factory.py``, ``transforms_imagenet_eval``, has it."""
    channels = config.get("input_size")
    size = channels[1:] if isinstance(channels, list) and len(channels) == 3 else []
    if len(size) != 2 or size[0] != size[1]:
        raise ValueError("input_size is not that of a square image")
    edge = int(_number("input_size", size[0], 1, _MAX_EDGE))
    resize: Union[int, List[int]] = floor(edge / _share(config.get("crop_pct", 0.875)))
    mode = config.get("crop_mode", "center")
    if mode not in ("center", "squash"):
        raise ValueError(f"crop_mode is {shown(str(mode))}, which is not known here")
    return Preprocess.from_dict(
        {
            "order": "RGB",
            "mean": _three("mean", config.get("mean"), 255.0),
            "std": _three("std", config.get("std"), 255.0),
            "resize": [resize, resize] if mode == "squash" else resize,
            "crop": edge,
            "interpolation": config.get("interpolation", "bilinear"),
            "library": "pillow",
        }
    )


def _of_transformers(folder: Path) -> Optional[Preprocess]:
    """As transformers' image processors of ConvNeXT, ViT and others read it."""
    config = _read(folder / PREPROCESSOR)
    if not isinstance(config, dict):
        return None
    scale = 1 / _number("rescale_factor", config.get("rescale_factor", 1 / 255), 1e-4, 1.0)
    normal = config.get("do_normalize", True) is True
    interpolation = _RESAMPLING.get(config.get("resample", 2))
    if interpolation is None:
        raise ValueError(f"{PREPROCESSOR}: resample is none of {list(_RESAMPLING)}")
    return Preprocess.from_dict(
        {
            "order": "RGB",
            "mean": _three("image_mean", config.get("image_mean"), scale) if normal else None,
            "std": _three("image_std", config.get("image_std"), scale) if normal else [scale] * 3,
            "interpolation": interpolation,
            "library": "pillow",
            **_sizes(config),
        }
    )


def _sizes(config: _Json) -> _Json:
    """``resize`` and ``crop``."""
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    size, crop_size = config.get("size"), config.get("crop_size")
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    if str(kind).startswith("ConvNext"):
        edge = int(_number("size", edge, 1, _MAX_EDGE))
        if edge >= 384:
            return {"resize": [edge, edge], "crop": None}
        return {"resize": int(edge / _share(config.get("crop_pct", 224 / 256))), "crop": edge}
    resize: Union[int, List[int]]
    if isinstance(size, dict) and "height" in size:
        resize = [int(_number("size", size.get(k), 1, _MAX_EDGE)) for k in ("height", "width")]
    else:
        resize = int(_number("size", edge, 1, _MAX_EDGE))
    if config.get("do_center_crop") is not True:
        return {"resize": [resize, resize] if isinstance(resize, int) else resize, "crop": None}
    crop = crop_size.get("height") if isinstance(crop_size, dict) else crop_size
    return {"resize": resize, "crop": int(_number("crop_size", crop, 1, _MAX_EDGE))}


def _number(name: str, value: object, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} is {shown(str(value))}, not a number from {low:g} to {high:g}")
    return value  # type: ignore[return-value]


def _share(value: object) -> float:
    return _number("crop_pct", value, 0.1, 1.0)


def _three(name: str, values: object, scale: float) -> List[float]:
    """Three numbers on the scale from 0 to 255."""
    if not isinstance(values, list) or len(values) != 3:
        raise ValueError(f"{name} is no list of three numbers")
    return [round(_number(name, value, -1e3, 1e3) * scale, 4) for value in values]
