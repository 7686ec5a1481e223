"""A recipe: one YAML file that states how a network is trained."""

import difflib
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
    field_validator,
)
from pydantic import PositiveInt as Count

from ..errors import UsageError
from ..preprocess import Preprocess
from ..zoo.models import unknown

FOLDER = Path(__file__).resolve().parents[3] / "recipes"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Optimizer(_Section):
    """SGD with momentum (Sutskever et al., 2013), weight decay on every parameter."""

    type: Literal["sgd"] = "sgd"
    lr: float = Field(gt=0)
    # What lr is for: "device" multiplies it by the number of devices (MegEngine/Models); a number
    # is a total batch, and lr follows the total batch in proportion (Goyal et al., 2017).
    lr_per: Union[Literal["device"], Count] = "device"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    nesterov: bool = False

    def total_lr(self, batch_size: int, devices: int) -> float:
        """The learning rate of the whole run, for ``batch_size`` images on each device."""
        if self.lr_per == "device":
            return self.lr * devices
        return self.lr * batch_size * devices / self.lr_per


class Schedule(_Section):
    """How the learning rate changes; every length is in epochs."""

    type: Literal["multistep", "cosine"] = "multistep"
    milestones: Tuple[float, ...] = ()  # multistep: where lr is multiplied by gamma
    gamma: float = Field(0.1, gt=0, le=1)
    warmup_epochs: float = Field(0.0, ge=0)  # linear, from zero

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: Tuple[float, ...]) -> Tuple[float, ...]:
        if any(later <= earlier for earlier, later in zip(milestones, milestones[1:])):
            raise ValueError("milestones must rise")
        return milestones


class Augment(_Section):
    """What is done to a training image, in this order."""

    crop: Literal["resized", "padded"] = "resized"
    area: Tuple[float, float] = (0.08, 1.0)  # resized: share of the image that is kept
    padding: int = Field(4, ge=0)  # padded: black border in pixels
    flip: bool = True
    jitter: float = Field(0.0, ge=0, le=1)  # brightness, contrast and saturation
    interpolation: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"

    @field_validator("area")
    @classmethod
    def _share(cls, area: Tuple[float, float]) -> Tuple[float, float]:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("area must be two rising numbers above 0 and up to 1")
        return area


class Recipe(_Section):
    """Everything that decides what a training run computes, but for the network and the data."""

    epochs: Count
    batch_size: Count  # images per device and step
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    augment: Augment = Augment()
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    zero_init_residual: bool = False
    preprocess: Preprocess = Preprocess()

    @field_validator("preprocess", mode="before")
    @classmethod
    def _read_preprocess(cls, values: Any) -> Preprocess:
        return values if isinstance(values, Preprocess) else Preprocess.from_dict(values)

    @field_serializer("preprocess")
    def _write_preprocess(self, preprocess: Preprocess) -> Dict[str, Any]:
        return {**preprocess.to_dict(), "mean": list(preprocess.mean), "std": list(preprocess.std)}

    @property
    def train_size(self) -> int:
        """Edge of a training image in pixels."""
        return self.preprocess.crop or self.preprocess.resize or 224

    def with_epochs(self, epochs: int) -> "Recipe":
        """The same shape in another time: warm-up and milestones keep their share of the run."""
        scale = epochs / self.epochs
        schedule = self.schedule.model_copy(
            update={
                "milestones": tuple(scale * epoch for epoch in self.schedule.milestones),
                "warmup_epochs": scale * self.schedule.warmup_epochs,
            }
        )
        return self.model_copy(update={"epochs": epochs, "schedule": schedule})


def load_recipe(name: str) -> Recipe:
    """Read a recipe by the path of its file or its name in ``official/recipes``.

    Raises:
        UsageError: naming the file and the key that is unknown or does not fit.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in FOLDER.glob("*.yaml"))
        raise UsageError(unknown("recipe", name, known))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    return parse_recipe(values, str(path))


def parse_recipe(values: Any, source: str) -> Recipe:
    """Check a recipe's keys and values.

    Raises:
        UsageError: for the first key that is unknown, with the nearest valid one, or unfit.
    """
    if not isinstance(values, dict):
        raise UsageError(f"{source}: expected keys and values, got {type(values).__name__}")
    try:
        return Recipe(**values)
    except ValidationError as error:
        raise UsageError(f"{source}: {_explain(error.errors()[0])}") from None
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def override(recipe: Recipe, changes: Dict[str, Any]) -> Recipe:
    """The recipe with other values under dotted keys, such as ``optimizer.lr``.

    Raises:
        UsageError: for a key that is unknown or a value that does not fit.
    """
    values = recipe.model_dump()
    values["preprocess"] = recipe.preprocess
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section[name]
        section[last] = value
    return parse_recipe(values, "flags")


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _explain(error: Dict[str, Any]) -> str:
    where = [str(part) for part in error["loc"]]
    key = ".".join(where)
    if error["type"] == "extra_forbidden":
        known = _keys(where[:-1])
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.0)
        return f"unknown key {key!r}; did you mean {near[0]!r}?"
    if error["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key}: {error['msg'][0].lower()}{error['msg'][1:]}, got {error['input']!r}"


def _keys(where: List[str]) -> List[str]:
    """The valid keys of the section at ``where``."""
    section: Optional[Any] = Recipe
    for part in where:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
