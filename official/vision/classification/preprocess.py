"""How an image must be prepared for a set of weights. Travels with the weights."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from .errors import UsageError

ORDERS = ("BGR", "RGB")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")


def _three_numbers(name: str, values: Any) -> Tuple[float, float, float]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(abs(number) < 1e6 for number in numbers):
        raise UsageError(f"preprocess: {name} must be three numbers, got {json.dumps(values)}")
    return numbers


@dataclass(frozen=True)
class Preprocess:
    """Decode, resize the short edge, cut the centre, order the channels, normalise.

    Args:
        order: channel order the network wants; files are decoded as BGR.
        mean, std: per channel in that order, on the 0 to 255 scale.
        resize: length of the short edge in pixels, None to leave the image as it is.
        crop: edge of the central square in pixels, None for the whole image.
        interpolation: of OpenCV: nearest, bilinear, bicubic or area.
    """

    order: str = "BGR"
    mean: Tuple[float, float, float] = (103.530, 116.280, 123.675)
    std: Tuple[float, float, float] = (57.375, 57.120, 58.395)
    resize: Optional[int] = 256
    crop: Optional[int] = 224
    interpolation: str = "bilinear"

    def __post_init__(self):
        if self.order not in ORDERS:
            raise UsageError(f"preprocess: order is {self.order!r}, not one of {ORDERS}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"preprocess: interpolation is {self.interpolation!r}, not one of {INTERPOLATIONS}"
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        if min(self.std) <= 0:
            raise UsageError(f"preprocess: std must be positive, got {self.std}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise UsageError(f"preprocess: {name} must be a positive integer, got {value!r}")
        if self.resize and self.crop and self.crop > self.resize:
            raise UsageError(f"preprocess: cannot crop {self.crop} from {self.resize} pixels")

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocess":
        """Build from a mapping; a key that is not a field is refused."""
        if not isinstance(values, dict):
            raise UsageError(f"preprocess: expected keys and values, got {values!r}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"preprocess: unknown key {key!r}; there are {', '.join(known)}")
        return cls(**values)


IMAGENET_RGB_MEAN = (123.675, 116.28, 103.53)
IMAGENET_RGB_STD = (58.395, 57.12, 57.375)

PRESETS = {
    # MegEngine/Models: cv2 images as they are, BGR.
    "megengine": Preprocess(),
    # torchvision's reference classification presets, with OpenCV's bilinear in place of PIL's.
    "torchvision": Preprocess("RGB", IMAGENET_RGB_MEAN, IMAGENET_RGB_STD),
    # MMPreTrain's ResNet configs, cv2 backend.
    "mmpretrain": Preprocess("RGB", IMAGENET_RGB_MEAN, IMAGENET_RGB_STD),
}


def parse_preprocess(text: str) -> Preprocess:
    """A preset's name, inline YAML or JSON, or the path of a YAML or JSON file.

    Raises:
        UsageError: for none of these, or for a key or value that does not fit.
    """
    import yaml  # not needed by those who only load a network through the hub

    if text in PRESETS:
        return PRESETS[text]
    source = "inline"
    if "{" not in text and ":" not in text:
        source, path = text, Path(text)
        if not path.is_file():
            raise UsageError(f"--preprocess {text}: neither a file nor one of {', '.join(PRESETS)}")
        text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--preprocess {source}: not YAML or JSON: {_one_line(error)}") from None
    return Preprocess.from_dict(values)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
