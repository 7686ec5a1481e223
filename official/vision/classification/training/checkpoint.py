"""A training run on disk: written whole or not at all, and checked when it is read.

One safetensors file holds ``model.<name>``, ``optimizer.<parameter>.<state>`` and, where a running
mean of the weights is kept, ``average.<name>`` tensors; its metadata holds a JSON description and
a digest of everything. There is no pickle in it.
"""

import hashlib
import json
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Tuple

import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.optimizer import Optimizer

from ..data.splits import HeldOut
from ..distributed.consistency import hash_arrays
from ..engine.files import safetensors_bytes, write_atomically
from ..errors import TrainingError, UsageError, WeightsError
from ..preprocess import Preprocess
from ..readers import read_weights
from ..zoo.weights import AVERAGE_PREFIX, DESCRIPTION, MODEL_PREFIX, strip_prefix
from .ema import ExponentialAverage

OPTIMIZER_PREFIX = "optimizer."
DIGEST = "sha256"
VERSION = 2

# Statistics that are means of squares, and a count of steps.
_NEVER_NEGATIVE = (".running_var", ".exp_avg_sq", ".step")
_MOST_STEPS = 10**12  # beyond any run; later sums of steps stay exact
_SCALER_KEYS = {
    *("scale_factor", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")
}


def _is_count(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_scaler_state(state: object) -> bool:
    if not isinstance(state, dict) or state.keys() - _SCALER_KEYS:
        return False
    if state and state.keys() != _SCALER_KEYS:
        return False
    return all(type(v) in (int, float) and 0 <= v < 2.0**64 for v in state.values())


def _are_names(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


# What a description may say; its sections are checked where they are read.
_VALID: Dict[str, Callable[[Any], bool]] = {
    "arch": lambda value: isinstance(value, str),
    "classes": lambda values: _are_names(values) and len(values) == len(set(values)) > 0,
    "recipe": lambda value: isinstance(value, dict),
    "seed": lambda value: _is_count(value, 0, 2**128),
    "step": lambda value: _is_count(value, 0, _MOST_STEPS),
    "total_batch": lambda value: _is_count(value, 1, _MOST_STEPS),
    "best_top1": lambda value: type(value) is float and -1 <= value <= 100,
    "loss_scaler": _is_scaler_state,
    "best_score": lambda value: type(value) is float and abs(value) < math.inf,
    "best_epoch": lambda value: _is_count(value, 0, _MOST_STEPS),
}
_NEWER = ("best_score", "best_epoch", "held_out")  # older runs do not have them


@dataclass(frozen=True)
class Progress:
    """What a run is and how far it has come; saved as the file's description."""

    arch: str
    classes: Tuple[str, ...]
    preprocess: Preprocess
    recipe: Dict[str, Any]
    seed: int
    step: int  # steps done
    total_batch: int  # images per step over all devices
    best_top1: float = -1.0
    loss_scaler: Dict[str, float] = field(default_factory=dict)  # its state, in half precision
    best_score: float = -1.0  # by the recipe's best_metric
    best_epoch: int = 0
    held_out: Optional[Dict[str, Any]] = None  # of the training images; see data/splits.py

    def to_json(self) -> str:
        values = dict(vars(self), preprocess=self.preprocess.to_dict(), version=VERSION)
        values["precision"] = values.pop("loss_scaler")  # its name in the file
        if self.held_out is None:
            del values["held_out"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("its description is no map of keys and values")
        if values.pop("version") != VERSION:
            raise ValueError("written by another version of this project")
        values["loss_scaler"] = values.pop("precision")
        for name, is_valid in _VALID.items():
            if name in _NEWER and name not in values:
                continue
            if not is_valid(values[name]):
                raise ValueError(f"{name}: {reprlib.repr(values[name])} makes no sense")
        if values.get("held_out") is not None:
            HeldOut.from_dict(values["held_out"])
        unknown = sorted(values.keys() - cls.__dataclass_fields__)
        if unknown:
            raise ValueError(f"{reprlib.repr(unknown)} are no keys of its description")
        if values.get("best_epoch", 0) > values["step"]:
            raise ValueError(f"best_epoch: {values['best_epoch']} is after its last step")
        if "best_score" not in values:
            values["best_score"] = values["best_top1"]
        values["classes"] = tuple(values["classes"])
        values["preprocess"] = Preprocess.from_dict(values["preprocess"])
        return cls(**values)


def collect_tensors(
    model: M.Module, optimizer: Optimizer, average: Optional[ExponentialAverage] = None
) -> Dict[str, np.ndarray]:
    """A copy of all that changes in training, by its names in a checkpoint.

    Raises:
        TrainingError: naming the first tensor that is not finite.
    """
    tensors = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    for name, value in _optimizer_state(model, optimizer):
        tensors[OPTIMIZER_PREFIX + name] = value.numpy()
    if average is not None:
        for name, value in average.state().items():
            tensors[AVERAGE_PREFIX + name] = value
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise TrainingError(f"{name} is not finite")
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def save_checkpoint(path: Path, tensors: Dict[str, np.ndarray], progress: Progress) -> None:
    """Write to a temporary file, flush it to the disk, and rename it to ``path``."""
    description = progress.to_json()
    metadata = {DESCRIPTION: description, DIGEST: _digest(tensors, description)}
    write_atomically(path, safetensors_bytes(tensors, metadata))


def save_weights(path: Path, tensors: Dict[str, np.ndarray], progress: Progress) -> None:
    """Write a network's tensors, and what is known of them, without the state of its training."""
    write_atomically(path, safetensors_bytes(tensors, {DESCRIPTION: progress.to_json()}))


def restore(
    path: Path,
    tensors: Dict[str, np.ndarray],
    model: M.Module,
    optimizer: Optimizer,
    average: Optional[ExponentialAverage] = None,
) -> None:
    """Give a run the tensors that ``read_checkpoint`` has returned.

    Raises:
        WeightsError: when they are of another run; nothing is changed then.
    """
    weights = strip_prefix(MODEL_PREFIX, tensors)
    state = strip_prefix(OPTIMIZER_PREFIX, tensors)
    averaged = strip_prefix(AVERAGE_PREFIX, tensors)
    own = model.state_dict()
    targets = dict(_optimizer_state(model, optimizer))
    wanted = {} if average is None else own
    for expected, found in ((own, weights), (targets, state), (wanted, averaged)):
        kinds = {
            name: (tuple(value.shape), np.dtype(value.dtype)) for name, value in expected.items()
        }
        if {name: (value.shape, value.dtype) for name, value in found.items()} != kinds:
            raise WeightsError(f"{path}: its tensors are not those of this run")
    for name, tensor in targets.items():
        tensor._reset(state[name])
    model.load_state_dict(weights)
    if average is not None:
        average.load(averaged)


def _kinds(tensors: Mapping[str, Any]) -> Dict[str, Tuple[Tuple[int, ...], np.dtype]]:
    return {name: (tuple(each.shape), np.dtype(each.dtype)) for name, each in tensors.items()}


def read_checkpoint(path: Path) -> Tuple[Progress, Dict[str, np.ndarray]]:
    """The description and tensors of a checkpoint whose digest is right.

    Raises:
        WeightsError: when the file is missing, damaged, or no checkpoint, or no run can have
            written what it says.
    """
    file = read_weights(path)
    if DESCRIPTION not in file.metadata or DIGEST not in file.metadata:
        raise WeightsError(f"{path}: weights only, no checkpoint; start from it with --pretrained")
    description = file.metadata[DESCRIPTION]
    if _digest(file.tensors, description) != file.metadata[DIGEST]:
        raise WeightsError(f"{path}: damaged, its content does not match its digest")
    try:
        progress = Progress.from_json(description)
        _check_values(file.tensors)
        return progress, file.tensors
    except (KeyError, TypeError, ValueError, RecursionError, UsageError) as error:
        raise WeightsError(f"{path}: cannot be resumed: {error}") from None


def _check_values(tensors: Dict[str, np.ndarray]) -> None:
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise ValueError(f"{name} is not finite")
        if name.endswith(_NEVER_NEGATIVE) and (value < 0).any():
            raise ValueError(f"{name} is negative")


def _digest(tensors: Dict[str, np.ndarray], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    hash_arrays(digest, tensors)
    return digest.hexdigest()


def _optimizer_state(model: M.Module, optimizer: Optimizer) -> Iterator[Tuple[str, Tensor]]:
    """The optimizer's tensors as ``<parameter>.<state>``, where MegEngine only numbers them."""
    for name, parameter in model.named_parameters():
        for kind, value in optimizer._state.get(parameter, {}).items():
            yield f"{name}.{kind}", value
