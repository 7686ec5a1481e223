"""A training run on disk: written whole or not at all, and checked when it is read.

One safetensors file holds ``model.<name>``, ``optimizer.<parameter>.<state>`` and, where a running
mean of the weights is kept, ``average.<name>`` tensors; its metadata holds a JSON description and
a digest of everything. There is no pickle in it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import megengine.module as M
import numpy as np
from megengine import Tensor
from megengine.optimizer import Optimizer
from safetensors.numpy import save

from ..distributed.consistency import hash_arrays
from ..engine.files import write_atomically
from ..errors import UsageError, WeightsError
from ..preprocess import Preprocess
from ..readers import read_weights
from ..zoo.weights import AVERAGE_PREFIX, DESCRIPTION, MODEL_PREFIX, strip_prefix
from .ema import ExponentialAverage

OPTIMIZER_PREFIX = "optimizer."
DIGEST = "sha256"
VERSION = 2


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

    @property
    def identity(self) -> Dict[str, Any]:
        """What cannot change in the course of a run."""
        changing = ("step", "best_top1", "loss_scaler")
        return {name: value for name, value in vars(self).items() if name not in changing}

    def to_json(self) -> str:
        values = dict(vars(self), preprocess=self.preprocess.to_dict(), version=VERSION)
        values["precision"] = values.pop("loss_scaler")  # its name in the file
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        values = json.loads(text)
        if values.pop("version") != VERSION:
            raise ValueError("written by another version of this project")
        if type(values["step"]) is not int or values["step"] < 0:
            raise ValueError("step is no count")
        if type(values["best_top1"]) is not float:
            raise ValueError("best_top1 is no number")
        values["loss_scaler"] = values.pop("precision", {})
        values["classes"] = tuple(values["classes"])
        values["preprocess"] = Preprocess.from_dict(values["preprocess"])
        return cls(**values)


def save_checkpoint(
    path: Path,
    model: M.Module,
    optimizer: Optimizer,
    progress: Progress,
    average: Optional[ExponentialAverage] = None,
) -> None:
    """Write to a temporary file, flush it to the disk, and rename it to ``path``."""
    tensors = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    for name, value in _optimizer_state(model, optimizer):
        tensors[OPTIMIZER_PREFIX + name] = value.numpy()
    if average is not None:
        for name, value in average.state().items():
            tensors[AVERAGE_PREFIX + name] = value
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    description = progress.to_json()
    metadata = {DESCRIPTION: description, DIGEST: _digest(tensors, description)}
    write_atomically(path, save(tensors, metadata=metadata))


def save_weights(path: Path, tensors: Dict[str, np.ndarray], progress: Progress) -> None:
    """Write a network's tensors, and what is known of them, without the state of its training."""
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    write_atomically(path, save(tensors, metadata={DESCRIPTION: progress.to_json()}))


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
        shapes = {name: tuple(value.shape) for name, value in expected.items()}
        if {name: value.shape for name, value in found.items()} != shapes:
            raise WeightsError(f"{path}: its tensors are not those of this run")
    for name, tensor in targets.items():
        tensor._reset(state[name])
    model.load_state_dict(weights)
    if average is not None:
        average.load(averaged)


def read_checkpoint(path: Path) -> Tuple[Progress, Dict[str, np.ndarray]]:
    """The description and tensors of a checkpoint whose digest is right.

    Raises:
        WeightsError: when the file is missing, damaged, or no checkpoint.
    """
    file = read_weights(path)
    if DESCRIPTION not in file.metadata or DIGEST not in file.metadata:
        raise WeightsError(f"{path}: weights only, no checkpoint; start from it with --pretrained")
    description = file.metadata[DESCRIPTION]
    if _digest(file.tensors, description) != file.metadata[DIGEST]:
        raise WeightsError(f"{path}: damaged, its content does not match its digest")
    try:
        return Progress.from_json(description), file.tensors
    except (KeyError, TypeError, ValueError, RecursionError, UsageError) as error:
        raise WeightsError(f"{path}: cannot be resumed: {error}") from None


def _digest(tensors: Dict[str, np.ndarray], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    hash_arrays(digest, tensors)
    return digest.hexdigest()


def _optimizer_state(model: M.Module, optimizer: Optimizer) -> Iterator[Tuple[str, Tensor]]:
    """The optimizer's tensors as ``<parameter>.<state>``, where MegEngine only numbers them."""
    for name, parameter in model.named_parameters():
        for kind, value in optimizer._state.get(parameter, {}).items():
            yield f"{name}.{kind}", value
