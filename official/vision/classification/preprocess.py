"""How an image must be prepared for a set of weights. Travels with the weights."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from reprlib import Repr
from typing import Any, Dict, Optional, Tuple, Union

from .errors import UsageError
from .readers.yaml_file import read_yaml, read_yaml_file

# What a field that is a word may be.
WORDS = {
    "order": ("BGR", "RGB"),
    "interpolation": ("nearest", "bilinear", "bicubic", "area"),
    "library": ("cv2", "pillow"),
    "rounding": ("down", "nearest"),
}

MAX_LENGTH = 65_535  # pixels, which is what a JPEG can have

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


def _key(default: Any, description: str, values: Optional[str] = None) -> Any:
    """A field, and what docs/recipes.md says of it."""
    return field(default=default, metadata={"description": description, "values": values})


@dataclass(frozen=True)
class Preprocess:
    """Decode (to BGR), resize, cut the centre, order the channels, normalise."""

    order: str = _key("BGR", "channel order that the network wants")
    mean: Tuple[float, float, float] = _key(
        (103.530, 116.280, 123.675),
        "subtracted, by channel in that order, on the scale from 0 to 255; `null` for 0",
        "three numbers or `null`",
    )
    std: Tuple[float, float, float] = _key(
        (57.375, 57.120, 58.395),
        "divided by, likewise; `null` for 1",
        "three numbers above 0 or `null`",
    )
    resize: Union[None, int, Tuple[int, int]] = _key(
        256,
        "short edge in pixels; or height and width, whatever that does to the proportions; `null` "
        "leaves the image as it is",
        "an integer above 0, two of them or `null`",
    )
    crop: Optional[int] = _key(
        224,
        "edge in pixels of the central square, and of a training image; `null` for the whole image",
        "an integer above 0 or `null`",
    )
    interpolation: str = _key("bilinear", "how it is resized")
    library: str = _key(
        "cv2",
        "whose resizing: when an image shrinks, Pillow averages all pixels that it covers, and "
        "OpenCV's `bilinear` and `bicubic` look at the nearest ones only, which costs networks "
        "that were trained with the other some tenths of a per cent",
    )
    rounding: str = _key(
        "down",
        "how the long edge and the crop's corner become whole pixels: `down` cuts the edge off and "
        "takes the corner to the nearest pixel, halves to even, as MegEngine, MMPreTrain and "
        "torchvision do; `nearest` keeps the proportions best, and takes the corner down; at most "
        "one pixel apart",
    )

    def __post_init__(self):
        for name, words in WORDS.items():
            if getattr(self, name) not in words:
                raise UsageError(
                    f"preprocess: {name} is {_BRIEF.repr(getattr(self, name))}, not one of {words}"
                )
        if self.library == "pillow" and self.interpolation == "area":
            raise UsageError("preprocess: area is an interpolation of cv2, not of pillow")
        for name, none in (("mean", (0, 0, 0)), ("std", (1, 1, 1))):
            values = getattr(self, name)
            numbers = _three_numbers(name, none if values is None else values)
            object.__setattr__(self, name, numbers)
        if min(self.std) <= 0:
            raise UsageError(f"preprocess: std must be positive, got {self.std}")
        if isinstance(self.resize, list):
            object.__setattr__(self, "resize", tuple(self.resize))
        self._check_sizes()

    @property
    def size(self) -> Optional[int]:
        """Edge in pixels of the largest square in what the network sees; None: by the image."""
        if self.crop:
            return self.crop
        return min(self.resize) if isinstance(self.resize, tuple) else self.resize

    def _check_sizes(self) -> None:
        edges: Tuple[int, ...] = ()
        if self.resize is not None:
            edges = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        if self.resize is not None and not (len(edges) == 2 and all(map(_is_length, edges))):
            raise UsageError(
                f"preprocess: resize must be an integer from 1 to {MAX_LENGTH}, or two for height "
                f"and width, got {_BRIEF.repr(self.resize)}"
            )
        if self.crop is not None and not _is_length(self.crop):
            raise UsageError(
                f"preprocess: crop must be an integer from 1 to {MAX_LENGTH}, got "
                f"{_BRIEF.repr(self.crop)}"
            )
        if edges and self.crop and self.crop > min(edges):
            raise UsageError(
                f"preprocess: crop {self.crop} is more than resize {self.resize} leaves"
            )

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
        known = [each.name for each in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(
                    f"preprocess: unknown key {_BRIEF.repr(key)}; there are {', '.join(known)}"
                )
        return cls(**values)


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 < value <= MAX_LENGTH


IMAGENET_RGB_MEAN = (123.675, 116.28, 103.53)
IMAGENET_RGB_STD = (58.395, 57.12, 57.375)

PRESETS = {
    # MegEngine/Models: cv2 images as they are, BGR.
    "megengine": Preprocess(),
    # torchvision's and timm's, to the byte: see tests/oracles/make_transforms.py.
    "torchvision": Preprocess("RGB", IMAGENET_RGB_MEAN, IMAGENET_RGB_STD, library="pillow"),
    # MMPreTrain's ResNet configs, cv2 backend.
    "mmpretrain": Preprocess("RGB", IMAGENET_RGB_MEAN, IMAGENET_RGB_STD),
}


def parse_preprocess(text: str) -> Dict[str, Any]:
    """What ``--preprocess`` puts in place of the weights' own, for ``Preprocess.override``.

    Args:
        text: a preset's name, which leaves the sizes to the weights; the path of a YAML or JSON
            file; or YAML or JSON itself.

    Raises:
        UsageError: for none of these, or for a key or value that does not fit.
    """
    if text in PRESETS:
        values = PRESETS[text].to_dict()
        return {name: value for name, value in values.items() if name not in ("resize", "crop")}
    source = text
    try:
        try:
            values = read_yaml_file(Path(text))
        except OSError as error:
            if "{" not in text and ":" not in text:
                raise UsageError(
                    f"--preprocess {text}: neither one of {', '.join(PRESETS)} nor a file that can "
                    f"be read: {error.strerror}"
                ) from None
            source = "inline"
            values = read_yaml(text)
    except ValueError as error:
        raise UsageError(f"--preprocess {source}: not YAML or JSON: {error}") from None
    Preprocess().override(values)  # fails now rather than after the weights are read
    return values
