"""The sections of a recipe: their keys, their defaults, and what they refuse."""

import math
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Literal, Optional, Tuple, Union

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    conint,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic import PositiveFloat as Positive

from ..errors import UsageError
from ..preprocess import Preprocess
from ..text import unknown
from ..zoo.models import ARCHS

if TYPE_CHECKING:
    Count = int
else:
    Count = conint(gt=0, le=10**9)
Interpolation = Literal["nearest", "bilinear", "bicubic", "area"]
Library = Literal["cv2", "pillow"]
Share = Tuple[float, float]


class Section(BaseModel):
    """Keys and values; an unknown key is refused, and so is one that another kind alone has.

    ``_kind`` names the key that chooses the kind, ``_of_kind`` the kinds that each of the other
    keys belongs to; a key that is not in it belongs to all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    _kind: ClassVar[str] = "type"
    _of_kind: ClassVar[Dict[str, Tuple[str, ...]]] = {}

    @classmethod
    def foreign(cls, kind: str) -> Tuple[str, ...]:
        """The keys that ``kind`` does not have."""
        return tuple(key for key, kinds in cls._of_kind.items() if kind not in kinds)

    @field_validator("*", mode="before")
    @classmethod
    def _no_word_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """YAML's yes and no would pass for 1 and 0."""
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted in (int, float, Optional[float]):
            raise ValueError("input should be a number")
        return value

    @model_validator(mode="after")
    def _has_only_its_own(self) -> "Section":
        if self._of_kind:
            kind = getattr(self, self._kind)
            for key in self.foreign(kind):
                if key in self.model_fields_set:
                    kinds = " and ".join(self._of_kind[key])
                    raise ValueError(
                        f"{key!r} belongs to {self._kind} {kinds}, and {self._kind} is {kind}"
                    )
        return self

    @model_serializer(mode="wrap")
    def _write_only_its_own(self, write: Any) -> Dict[str, Any]:
        foreign = self.foreign(getattr(self, self._kind)) if self._of_kind else ()
        return {key: value for key, value in write(self).items() if key not in foreign}


class Optimizer(Section):
    """How the weights follow the gradient.

    sgd: with momentum (Sutskever et al., 2013). lamb: You et al., arXiv:1904.00962. adamw:
    Loshchilov and Hutter, arXiv:1711.05101.
    """

    _of_kind = {
        "momentum": ("sgd",),
        "nesterov": ("sgd",),
        "betas": ("lamb", "adamw"),
        "eps": ("lamb", "adamw"),
    }

    type: Literal["sgd", "lamb", "adamw"] = "sgd"
    lr: Positive
    # What lr is for: "device" multiplies it by the number of devices (MegEngine/Models); a number
    # is a total batch, and lr follows the total batch in proportion (Goyal et al., 2017).
    lr_per: Union[Literal["device"], Count] = "device"
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: Tuple[float, float] = (0.9, 0.999)  # of the running means of the gradient, its square
    eps: Positive = 1e-8
    weight_decay: float = Field(0.0, ge=0)
    decay_norm: bool = True  # whether it also holds for the normalisations
    decay_bias: bool = True  # whether it also holds for biases, of any layer
    clip_norm: Optional[float] = Field(None, gt=0)  # most that the whole gradient's norm may be

    @field_validator("lr_per", mode="before")
    @classmethod
    def _device_or_images(cls, value: Any) -> Any:
        if value != "device" and (type(value) is not int or value < 1):
            raise ValueError("input should be 'device' or a number of images")
        return value

    @field_validator("betas")
    @classmethod
    def _shares(cls, betas: Share) -> Share:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("input should be two numbers from 0 and below 1")
        return betas

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Optimizer":
        if self.nesterov and not self.momentum:
            raise ValueError("'nesterov' needs a momentum above 0")
        return self

    def total_lr(self, batch_size: int, devices: int, accumulate: int = 1) -> float:
        """The learning rate of the whole run.

        Args:
            batch_size: images per device and step.
            accumulate: steps whose mean gradient makes one update; k of them on one device count
                as one step on k devices, whose gradient is the same.
        """
        devices *= accumulate
        if self.lr_per == "device":
            return self.lr * devices
        return self.lr * batch_size * devices / self.lr_per


class Schedule(Section):
    """How the learning rate changes; every length is in epochs."""

    _of_kind = {
        "milestones": ("multistep",),
        "gamma": ("multistep",),
        "final_lr": ("cosine",),
        "every": ("cosine",),
    }

    type: Literal["multistep", "cosine"] = "multistep"
    milestones: Tuple[float, ...] = ()  # where lr is multiplied by gamma
    gamma: float = Field(0.1, gt=0, le=1)
    final_lr: float = Field(0.0, ge=0)  # where it ends, for the lr of the whole run
    every: Literal["step", "epoch"] = "step"  # how often it changes once it is warm
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_start: float = Field(0.0, ge=0, le=1)  # share of lr that the first step has
    warmup_shape: Literal["linear", "constant"] = "linear"

    @field_validator("milestones")
    @classmethod
    def _rising(cls, milestones: Tuple[float, ...]) -> Tuple[float, ...]:
        if any(later <= earlier for earlier, later in zip((0.0, *milestones), milestones)):
            raise ValueError("milestones must rise from above 0")
        return milestones

    @model_validator(mode="after")
    def _warms_up(self) -> "Schedule":
        if self.warmup_epochs and self.warmup_shape == "constant" and not self.warmup_start:
            raise ValueError("a constant warm-up needs a 'warmup_start' above 0, or nothing learns")
        return self


class Loss(Section):
    """What the network is to make small.

    softmax: cross-entropy, mean over images. bce: binary cross-entropy of every class for itself,
    summed over classes, mean over images (Wightman et al., arXiv:2110.00476).
    """

    type: Literal["softmax", "bce"] = "softmax"
    # Share of a target that is spread over all classes (Szegedy et al., arXiv:1512.00567).
    label_smoothing: float = Field(0.0, ge=0, lt=1)


class RandAugment(Section):
    """Random changes of colour and geometry (Cubuk et al., arXiv:1909.13719), as timm has them."""

    ops: Count = 2  # changes drawn for an image
    magnitude: float = Field(7, ge=0)  # mean of their strength
    magnitude_std: float = Field(0.5, ge=0)  # its standard deviation
    probability: float = Field(0.5, ge=0, le=1)  # of each change that was drawn
    levels: Positive = 10  # the strength at which a change is at its most
    fill: Tuple[int, int, int] = (104, 116, 124)  # BGR, of pixels that come from outside
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"

    @field_validator("fill")
    @classmethod
    def _color(cls, fill: Tuple[int, int, int]) -> Tuple[int, int, int]:
        if not all(0 <= value <= 255 for value in fill):
            raise ValueError("input should be three integers from 0 to 255, for B, G and R")
        return fill

    @model_validator(mode="after")
    def _within_its_levels(self) -> "RandAugment":
        if self.magnitude > self.levels:
            raise ValueError(f"magnitude {self.magnitude:g} is above levels {self.levels:g}")
        return self


class Augment(Section):
    """What is done to a training image, in this order, and to a batch of them.

    crop: resized takes a random part and scales it (Szegedy et al., arXiv:1409.4842); the others
    resize the image as ``preprocess`` says, as testing does: random cuts any square out of it,
    padded any square out of it in a black border (He et al., arXiv:1512.03385, section 4.2). The
    square's edge is that of ``preprocess``.
    """

    _kind = "crop"
    _of_kind = {
        "area": ("resized",),
        "aspect": ("resized",),
        "interpolation": ("resized",),
        "library": ("resized",),
        "padding": ("padded",),
    }

    crop: Literal["resized", "padded", "random"] = "resized"
    area: Share = (0.08, 1.0)  # share of the image that is kept
    aspect: Share = (3 / 4, 4 / 3)  # width over height of what is kept
    interpolation: Interpolation = "bilinear"
    library: Library = "cv2"
    padding: int = Field(4, ge=0, le=10**4)  # black border in pixels
    flip: bool = True
    jitter: float = Field(0.0, ge=0, le=1)  # brightness, contrast and saturation
    rand_augment: Optional[RandAugment] = None
    erasing: float = Field(0.0, ge=0, le=1)  # probability (Zhong et al., arXiv:1708.04896)
    # alpha of the Beta distribution of the shares, 0 for none; with both, every batch gets one of
    # them at equal odds (Zhang et al., arXiv:1710.09412; Yun et al., arXiv:1905.04899).
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    repeats: Count = 1  # crops of an image in one batch (Berman et al., arXiv:1902.05509)

    @field_validator("area")
    @classmethod
    def _shares(cls, area: Share) -> Share:
        if not 0 < area[0] <= area[1] <= 1:
            raise ValueError("area must be two rising numbers above 0 and up to 1")
        return area

    @field_validator("aspect")
    @classmethod
    def _ratios(cls, aspect: Share) -> Share:
        if not 0 < aspect[0] <= aspect[1]:
            raise ValueError("aspect must be two rising numbers above 0")
        return aspect

    @model_validator(mode="after")
    def _library_can(self) -> "Augment":
        if (self.library, self.interpolation) == ("pillow", "area"):
            raise ValueError("area is an interpolation of cv2, not of pillow")
        return self


class Ema(Section):
    """A running mean of the weights, which is tested beside them (Polyak and Juditsky, 1992)."""

    decay: float = Field(0.9999, ge=0, lt=1)  # share of the old mean in the new one, per update
    warmup: bool = True  # forget faster at first, when the mean is mostly what training began with


class Amp(Section):
    """Half precision where it is safe (Micikevicius et al., arXiv:1710.03740); GPUs only."""

    enabled: bool = True
    loss_scale: Union[Literal["dynamic"], Positive] = "dynamic"

    @field_validator("loss_scale", mode="before")
    @classmethod
    def _dynamic_or_factor(cls, value: Any) -> Any:
        if value != "dynamic" and not (type(value) in (int, float) and 0 < value < math.inf):
            raise ValueError("input should be 'dynamic' or a number above 0")
        return value


Precision = Literal["fp32", "bf16"]


class Recipe(Section):
    """Everything that decides what a training run computes, but for the data."""

    arch: Optional[str] = None  # the network it is for
    epochs: Count
    batch_size: Count  # images per device and step
    accumulate: Count = 1  # steps whose mean gradient makes one update
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    augment: Augment = Augment()
    drop_path: float = Field(0.0, ge=0, lt=1)  # Huang et al., arXiv:1603.09382
    zero_init_residual: bool = False
    sync_bn: bool = False  # batch statistics over all devices instead of each device's own
    ema: Optional[Ema] = None
    amp: Amp = Amp(enabled=False)
    precision: Precision = "fp32"  # bf16: what a CPU's maps are rounded to; weights stay fp32
    # Fine-tuning: how many of stem, layer1, layer2, layer3 and layer4 stay as they are.
    freeze: int = Field(0, ge=0, le=5)
    head_lr: Positive = 1.0  # fine-tuning: the classifier's lr relative to the others'
    preprocess: Preprocess = Preprocess()

    @field_validator("arch")
    @classmethod
    def _known(cls, arch: Optional[str]) -> Optional[str]:
        if arch is not None and arch not in ARCHS:
            raise UsageError(unknown("network", arch, list(ARCHS)))
        return arch

    @field_validator("amp", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return {"enabled": value} if isinstance(value, bool) else value

    @field_serializer("amp")
    def _write_on_or_off(self, amp: Amp) -> Union[bool, Dict[str, Any]]:
        return amp.model_dump() if amp.enabled else False

    @field_validator("preprocess", mode="before")
    @classmethod
    def _read_preprocess(cls, values: Any) -> Preprocess:
        return values if isinstance(values, Preprocess) else Preprocess.from_dict(values)

    @field_serializer("preprocess")
    def _write_preprocess(self, preprocess: Preprocess) -> Dict[str, Any]:
        return {**preprocess.to_dict(), "mean": list(preprocess.mean), "std": list(preprocess.std)}

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        schedule, augment = self.schedule, self.augment
        if schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs {schedule.warmup_epochs:g} leaves nothing of epochs "
                f"{self.epochs}; the flag --epochs shortens both"
            )
        if schedule.final_lr > self.optimizer.lr:
            raise ValueError(
                f"schedule.final_lr {schedule.final_lr:g} is above optimizer.lr "
                f"{self.optimizer.lr:g}"
            )
        for key in ("mixup", "cutmix"):
            if getattr(augment, key) and self.batch_size == 1:
                raise ValueError(f"augment.{key} needs two images or more, and batch_size is 1")
        if augment.crop == "random" and not self.preprocess.crop:
            raise ValueError("augment.crop random needs preprocess.crop, its size")
        return self

    @property
    def train_size(self) -> int:
        """Edge of a training image in pixels."""
        return self.preprocess.size or 224

    def total_lr(self, devices: int) -> float:
        """The learning rate of the whole run on ``devices`` devices."""
        return self.optimizer.total_lr(self.batch_size, devices, self.accumulate)

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
