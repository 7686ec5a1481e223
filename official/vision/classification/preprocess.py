"""How an image must be prepared for a set of weights. Travels with the weights."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from reprlib import Repr
from typing import Any, Dict, Optional, Tuple

from .errors import UsageError

ORDERS = ("BGR", "RGB")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "area")

_BRIEF = Repr()  # what a file holds may be of any length, or contain itself
_BRIEF.maxlevel = 2


def _three_numbers(name: str, values: Any) -> Tuple[float, float, float]:
    listed = values if isinstance(values, (list, tuple)) else ()  # not "123", not a mapping
    try:
        numbers = tuple(float(value) for value in listed)
    except (OverflowError, TypeError, ValueError):
        numbers = ()
    if len(numbers) != 3 or not all(abs(number) < 1e6 for number in numbers):
        raise UsageError(f"preprocess: {name} must be three numbers, got {_BRIEF.repr(values)}")
    return numbers


@dataclass(frozen=True)
class Preprocess:
    """Decode, resize the short edge, cut the centre, order the channels, normalise.

    Args:
        order: channel order the network wants; files are decoded as BGR.
        mean, std: per channel in that order, on the 0 to 255 scale; None for 0 and for 1.
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
            raise UsageError(f"preprocess: order is {_BRIEF.repr(self.order)}, not one of {ORDERS}")
        if self.interpolation not in INTERPOLATIONS:
            raise UsageError(
                f"preprocess: interpolation is {_BRIEF.repr(self.interpolation)}, "
                f"not one of {INTERPOLATIONS}"
            )
        for name, none in (("mean", (0, 0, 0)), ("std", (1, 1, 1))):
            values = getattr(self, name)
            numbers = _three_numbers(name, none if values is None else values)
            object.__setattr__(self, name, numbers)
        if min(self.std) <= 0:
            raise UsageError(f"preprocess: std must be positive, got {self.std}")
        for name in ("resize", "crop"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value > 0):
                raise UsageError(
                    f"preprocess: {name} must be a positive integer, got {_BRIEF.repr(value)}"
                )
        if self.resize and self.crop and self.crop > self.resize:
            raise UsageError(f"preprocess: cannot crop {self.crop} from {self.resize} pixels")

    def override(self, values: Dict[str, Any]) -> "Preprocess":
        """A copy with some fields replaced; another order alone takes mean and std along."""
        merged = self.to_dict()
        if isinstance(values, dict) and values.get("order", self.order) != self.order:
            merged.update(mean=self.mean[::-1], std=self.std[::-1])
        return Preprocess.from_dict({**merged, **values} if isinstance(values, dict) else values)

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Preprocess":
        """Build from a mapping; a key that is not a field is refused."""
        if not isinstance(values, dict):
            raise UsageError(f"preprocess: expected keys and values, got {_BRIEF.repr(values)}")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(
                    f"preprocess: unknown key {_BRIEF.repr(key)}; there are {', '.join(known)}"
                )
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


def parse_preprocess(text: str) -> Dict[str, Any]:
    """What ``--preprocess`` puts in place of the weights' own, for ``Preprocess.override``.

    Args:
        text: a preset's name, the path of a YAML or JSON file, or YAML or JSON itself.

    Raises:
        UsageError: for none of these, or for a key or value that does not fit.
    """
    import yaml  # not needed by those who only load a network through the hub

    if text in PRESETS:
        return PRESETS[text].to_dict()
    source, content = _read(text)
    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2001-99-99
        raise UsageError(f"--preprocess {source}: not YAML or JSON: {_one_line(error)}") from None
    Preprocess().override(values)  # fails now rather than after the weights are read
    return values


def _read(text: str) -> Tuple[str, str]:
    """Where the values come from, and their text."""
    try:
        return text, Path(text).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:  # ValueError: a null byte in a path
        if "{" in text or ":" in text:
            return "inline", text
        raise UsageError(
            f"--preprocess {text}: neither one of {', '.join(PRESETS)} nor a file that can be "
            f"read: {getattr(error, 'strerror', None) or error}"
        ) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
