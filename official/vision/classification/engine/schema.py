"""The sections of a recipe: their keys, what they mean, their defaults, and what they refuse.

``tools/update_tables.py`` writes the tables of docs/recipes.md from this. A default never changes:
recipes state what differs from them. ``section.py`` has what is common to all sections, and
``data/augment.py`` the section ``augment`` beside what it does.
"""

import math
from typing import Any, Dict, Literal, Optional, Tuple, Union

from pydantic import Field, field_serializer, field_validator, model_validator
from pydantic import PositiveFloat as Positive

from ..data.augment import Augment
from ..errors import UsageError
from ..preprocess import Preprocess
from ..section import Count, Section, Share
from ..text import unknown
from ..zoo.models import ARCHS


class Optimizer(Section):
    """How the weights follow the gradient."""

    _of_kind = {
        "momentum": ("sgd",),
        "nesterov": ("sgd",),
        "betas": ("lamb", "adamw"),
        "eps": ("lamb", "adamw"),
    }

    type: Literal["sgd", "lamb", "adamw"] = Field(
        "sgd",
        description="`sgd`: with momentum (Sutskever et al., 2013); `lamb`: You et al., "
        "arXiv:1904.00962; `adamw`: Loshchilov and Hutter, arXiv:1711.05101",
    )
    lr: Positive = Field(description="learning rate, for what `lr_per` says")
    lr_per: Union[Literal["device"], Count] = Field(
        "device",
        description="`device`: the run's rate is `lr` times the number of devices "
        "(MegEngine/Models); a number: `lr` is for batches of so many images, and the rate is in "
        "proportion to the run's batch (Goyal et al., arXiv:1706.02677)",
        json_schema_extra={"values": "`device` or an integer above 0"},
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step in the next")
    nesterov: bool = Field(False, description="look ahead by the momentum; needs one above 0")
    betas: Tuple[float, float] = Field(
        (0.9, 0.999),
        description="decay of the running means of the gradient and of its square",
        json_schema_extra={"values": "two numbers from 0, below 1"},
    )
    eps: Positive = Field(1e-8, description="added to the root of the mean square")
    weight_decay: float = Field(
        0.0, ge=0, description="of all parameters, but for what the next two keys except"
    )
    decay_norm: bool = Field(True, description="whether it holds for normalisations")
    decay_bias: bool = Field(True, description="whether it holds for biases, of any layer")
    clip_norm: Optional[float] = Field(
        None, gt=0, description="most that the norm of the whole gradient may be"
    )

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
    """How the learning rate changes; lengths are in epochs, and need not be whole."""

    _of_kind = {
        "milestones": ("multistep",),
        "gamma": ("multistep",),
        "final_lr": ("cosine",),
        "every": ("cosine",),
    }

    type: Literal["multistep", "cosine"] = Field(
        "multistep", description="in steps, or along half a cosine"
    )
    milestones: Tuple[float, ...] = Field(
        (),
        description="where the rate is multiplied by `gamma`",
        json_schema_extra={"values": "rising numbers above 0"},
    )
    gamma: float = Field(0.1, gt=0, le=1, description="what a milestone multiplies the rate by")
    final_lr: float = Field(
        0.0, ge=0, description="where the rate of the run ends; it is not scaled"
    )
    every: Literal["step", "epoch"] = Field(
        "step", description="how often the rate changes after the warm-up"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="length of the warm-up")
    warmup_start: float = Field(
        0.0, ge=0, le=1, description="share of the rate that the first step has"
    )
    warmup_shape: Literal["linear", "constant"] = Field(
        "linear", description="whether the rate rises, or holds `warmup_start` to its end"
    )

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
    """What the network is to make small."""

    _of_kind = {"over_classes": ("bce",), "mixed": ("bce",)}

    type: Literal["softmax", "bce"] = Field(
        "softmax",
        description="`softmax`: cross-entropy, mean over images; `bce`: binary cross-entropy of "
        "each class, mean over images (Wightman et al., arXiv:2110.00476)",
    )
    over_classes: Literal["sum", "mean"] = Field(
        "sum",
        description="`sum`: an image's losses are added up (MMPreTrain); `mean`: their mean (timm)",
    )
    mixed: Literal["shares", "all"] = Field(
        "shares",
        description="`shares`: the target of a mixed image's class is its share of it; `all`: 1, "
        "for each of them",
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of a target that is spread over all classes (Szegedy et al., "
        "arXiv:1512.00567)",
    )
    class_weights: Optional[Literal["balanced"]] = Field(
        None,
        description="`balanced`: images of rare classes count more, by the number of images over "
        "the number of classes and of the class's images",
    )


class Ema(Section):
    """A running mean of the weights, which is tested beside them (Polyak and Juditsky, 1992)."""

    decay: float = Field(
        0.9999, ge=0, lt=1, description="share of the old mean in the new one, per update"
    )
    warmup: bool = Field(
        True, description="forget faster at first, when the mean is mostly the first weights"
    )


class Amp(Section):
    """Half precision where it is safe (Micikevicius et al., arXiv:1710.03740); GPUs only."""

    enabled: bool = Field(True, description="whether the section counts")
    loss_scale: Union[Literal["dynamic"], Positive] = Field(
        "dynamic", description="what the loss is multiplied by, so that no gradient becomes 0"
    )

    @field_validator("loss_scale", mode="before")
    @classmethod
    def _dynamic_or_factor(cls, value: Any) -> Any:
        if value != "dynamic" and not (type(value) in (int, float) and 0 < value < math.inf):
            raise ValueError("input should be 'dynamic' or a number above 0")
        return value


Precision = Literal["fp32", "bf16"]  # of training
InferencePrecision = Literal["fp32", "bf16", "int8"]


class Recipe(Section):
    """Everything that decides what a training run computes, but for the data."""

    arch: Optional[str] = Field(
        None,
        description="the network; `--arch` names another, and without both it is resnet18",
        json_schema_extra={"values": "a network or `null`"},
    )
    epochs: Count = Field(description="times that the training images are gone through")
    batch_size: Count = Field(description="images per device and step")
    accumulate: Count = Field(1, description="steps whose mean gradient makes one update")
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled",
        description="`shuffled`: an epoch has every image once; `balanced`: as many of each class, "
        "so that images of rare classes come several times, augmented anew, and others wait for "
        "another epoch",
    )
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    loss: Loss = Loss()
    augment: Augment = Augment()
    drop_path: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of residual branches left out, in the last block; rises linearly from 0 "
        "in the first (Huang et al., arXiv:1603.09382)",
    )
    zero_init_residual: bool = Field(
        False,
        description="residual branches start at zero (Goyal et al., arXiv:1706.02677, section 5.1)",
    )
    sync_bn: bool = Field(
        False, description="batch normalisation over all devices' images instead of each device's"
    )
    ema: Optional[Ema] = Field(
        None,
        description="a running mean of the weights, tested beside them (Polyak and Juditsky, "
        "1992); `{}` turns it on",
    )
    amp: Amp = Field(
        Amp(enabled=False),
        description="half precision where it is safe (Micikevicius et al., arXiv:1710.03740), on "
        "GPUs; keys turn it on",
        json_schema_extra={"values": "`true`, `false` or keys"},
    )
    precision: Precision = Field(
        "fp32", description="`bf16`: a CPU's maps are rounded to bfloat16; weights stay float32"
    )
    freeze: int = Field(
        0,
        ge=0,
        le=5,
        description="fine-tuning: how many of stem, layer1, layer2, layer3 and layer4 stay as they "
        "are",
    )
    head_lr: Positive = Field(
        1.0, description="fine-tuning: the classifier's rate relative to the others'"
    )
    freeze_norm: bool = Field(
        False,
        description="fine-tuning: batch normalisations keep the statistics of the weights that "
        "training starts from",
    )
    probe: bool = Field(
        False,
        description="fine-tuning: the classifier starts as the best linear one on the features "
        "that the weights give (Alain and Bengio, arXiv:1610.01644), and that is tested first; it "
        "is kept unless an epoch is better by more than a standard error of its accuracy",
    )
    best_metric: Literal["top1", "macro_f1", "balanced_accuracy", "loss"] = Field(
        "top1", description="of the validation images: by which the best epoch is chosen"
    )
    test_every: Count = Field(
        1, description="epochs between two tests on the validation images; the last is tested, too"
    )
    patience: Optional[Count] = Field(
        None, description="epochs in a row without a better one, after which the run ends"
    )
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
        if self.loss.class_weights and self.sampling == "balanced":
            raise ValueError(
                "loss.class_weights and sampling balanced do the same twice; leave one out"
            )
        if augment.crop == "random" and not self.preprocess.crop:
            raise ValueError("augment.crop random needs preprocess.crop, its size")
        if augment.scaling(self.preprocess) == ("area", "pillow"):
            raise ValueError("augment: area is an interpolation of cv2, not of pillow")
        return self

    @property
    def train_size(self) -> int:
        """Edge of a training image in pixels."""
        return self.augment.size or self.preprocess.size or 224

    def total_lr(self, devices: int) -> float:
        """The learning rate of the whole run on ``devices`` devices."""
        return self.optimizer.total_lr(self.batch_size, devices, self.accumulate)

    def is_to_test(self, step: int, steps_per_epoch: int) -> bool:
        """Whether the validation images are tested after so many steps."""
        epoch, within = divmod(step, steps_per_epoch)
        return not within and (epoch % self.test_every == 0 or epoch == self.epochs)

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
