"""A training run on disk: written whole or not at all, and checked when it is read.

One safetensors file holds ``model.<name>`` and ``optimizer.<parameter>.<state>`` tensors; its
metadata holds a JSON description and a digest of everything. There is no pickle in it.
"""

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import megengine.module as M
import megengine.optimizer as optim
import numpy as np
from megengine import Tensor
from safetensors.numpy import save

from ..errors import UserError, WeightsError
from ..preprocess import Preprocess
from ..zoo.load import DESCRIPTION, MODEL_PREFIX, strip_prefix
from ..zoo.readers import read_weights

OPTIMIZER_PREFIX = "optimizer."
DIGEST = "sha256"
VERSION = 1


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

    def to_json(self) -> str:
        values = dict(vars(self), preprocess=self.preprocess.to_dict(), version=VERSION)
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        values = json.loads(text)
        if values.pop("version") != VERSION:
            raise ValueError("written by another version of this project")
        values["classes"] = tuple(values["classes"])
        values["preprocess"] = Preprocess.from_dict(values["preprocess"])
        return cls(**values)


def save_checkpoint(
    path: Path, model: M.Module, optimizer: optim.Optimizer, progress: Progress
) -> None:
    """Write to a temporary file, flush it to the disk, and rename it to ``path``."""
    tensors = {MODEL_PREFIX + name: value for name, value in model.state_dict().items()}
    for name, value in _optimizer_state(model, optimizer):
        tensors[OPTIMIZER_PREFIX + name] = value.numpy()
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    description = progress.to_json()
    metadata = {DESCRIPTION: description, DIGEST: _digest(tensors, description)}
    write_atomically(path, save(tensors, metadata=metadata))


def load_checkpoint(path: Path, model: M.Module, optimizer: optim.Optimizer) -> Progress:
    """Restore what ``save_checkpoint`` has written.

    Raises:
        WeightsError: when the file is missing, damaged, or of another run; ``model`` and
            ``optimizer`` are then untouched.
    """
    progress, tensors = read_checkpoint(path)
    weights = strip_prefix(MODEL_PREFIX, tensors)
    state = strip_prefix(OPTIMIZER_PREFIX, tensors)
    targets = dict(_optimizer_state(model, optimizer))
    for expected, found in ((model.state_dict(), weights), (targets, state)):
        shapes = {name: tuple(value.shape) for name, value in expected.items()}
        if {name: value.shape for name, value in found.items()} != shapes:
            raise WeightsError(f"{path}: its tensors are not those of this run")
    for name, tensor in targets.items():
        tensor._reset(state[name])
    model.load_state_dict(weights)
    return progress


def read_checkpoint(path: Path) -> Tuple[Progress, Dict[str, np.ndarray]]:
    """The description and tensors of a checkpoint whose digest is right."""
    file = read_weights(path)
    if DESCRIPTION not in file.metadata or DIGEST not in file.metadata:
        raise WeightsError(f"{path}: weights only, no checkpoint; start from it with --pretrained")
    description = file.metadata[DESCRIPTION]
    if _digest(file.tensors, description) != file.metadata[DIGEST]:
        raise WeightsError(f"{path}: damaged, its content does not match its digest")
    try:
        return Progress.from_json(description), file.tensors
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be resumed: {error}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; at any instant it holds the old content or the new.

    Raises:
        UserError: when the disk is full or the folder is gone.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; what was there before is kept"
        ) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself, not only the content, survives a power cut
    finally:
        os.close(folder)


def _digest(tensors: Dict[str, np.ndarray], description: str) -> str:
    digest = hashlib.sha256(description.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    return digest.hexdigest()


def _optimizer_state(model: M.Module, optimizer: optim.Optimizer) -> Iterator[Tuple[str, Tensor]]:
    """The optimizer's tensors as ``<parameter>.<state>``, where MegEngine only numbers them."""
    for name, parameter in model.named_parameters():
        for kind, value in optimizer._state.get(parameter, {}).items():
            yield f"{name}.{kind}", value
