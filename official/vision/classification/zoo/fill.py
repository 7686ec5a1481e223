"""Filling a network with the weights of a file, every tensor or none."""

import logging
import re
from pathlib import Path
from typing import Collection, Dict, List, Tuple

import megengine.module as M
import numpy as np

from ..errors import WeightsError
from .fits import misfits, network_of, some
from .weights import CLASSIFIER, Weights

logger = logging.getLogger(__name__)


def fill(
    model: M.Module, weights: Weights, new_head: bool = False, name: str = "the network"
) -> None:
    """Give ``model`` the weights after checking every name, shape and value.

    Args:
        new_head: leave the classifier as it is where the weights have none, or one that differs
            in nothing but the number of classes.
        name: what to call the network in messages.

    Raises:
        WeightsError: listing what does not fit; the network is then untouched.
    """
    tensors = fitting_tensors(model, weights, new_head, name)
    if "fc.weight" in tensors and weights.num_classes not in (None, len(tensors["fc.weight"])):
        logger.warning(
            "%s: has %d classes; the classifier starts anew with %d",
            weights.path,
            weights.num_classes,
            len(tensors["fc.weight"]),
        )
    model.load_state_dict(tensors)


def fitting_tensors(
    model: M.Module, weights: Weights, new_head: bool = False, name: str = "the network"
) -> Dict[str, np.ndarray]:
    """What ``fill`` gives to ``model``, in the network's own shapes.

    Raises:
        WeightsError: listing what does not fit.
    """
    own = dict(model.named_tensors())  # state_dict() would wait for values, and copy them
    expected = {key: tuple(value.shape) for key, value in own.items()}
    tensors = dict(weights.tensors)
    if new_head and _other_classes(expected, tensors):
        tensors.update({key: own[key].numpy() for key in CLASSIFIER})
    if not new_head and "fc.weight" in expected and not {*CLASSIFIER} & {*tensors}:
        body = {key: shape for key, shape in expected.items() if key not in CLASSIFIER}
        if not misfits(body, tensors):
            raise WeightsError(
                f"{weights.path}: has no classifier"
                + (f" but another head ({weights.head})" if weights.head else "")
                + (f" ({_hint(weights)})" if _hint(weights) else "")
                + ", which is needed here; it is a start for training with --pretrained"
            )
    missing = misfits(expected, tensors)
    problems = missing + _unusable(expected, tensors)
    if missing:
        known = network_of(weights)
        other = known is not None and not name.startswith(f"{known}")
        hint = _hint(weights)
        problems.append(f"it fits {known}" if other else hint or "is it of another network?")
    if problems:
        raise WeightsError(f"{weights.path}: does not fit {name}: {'; '.join(problems)}")
    return {
        key: np.ascontiguousarray(tensors[key], np.float32).reshape(shape)
        for key, shape in expected.items()
    }


# What a part of a name, or of the file's, gives away, and what to do about it.
_HINTS = (
    (r"_packed_params|\.zero_point$", "it is of a quantised network: save that of floats"),
    (
        r"\.weight_(orig|mask)$",
        "it is pruned: torch.nn.utils.prune.remove makes plain weights of it",
    ),
    (
        r"\.parametrizations\.|\.weight_[gv]$",
        "it is parametrized: torch.nn.utils.parametrize.remove_parametrizations makes it plain",
    ),
    (r"-\d+-of-\d+\.", "it is one of several files: put their tensors into one"),
    (r"\.lora_[AB]\.", "it has adapters (LoRA): merge them into the weights first"),
)


def _hint(weights: Weights) -> str:
    """Why a file of the right network may not fit; empty where nothing tells."""
    names = [*weights.tensors, *weights.head.split(", "), weights.remark, Path(weights.path).name]
    return next((way for mark, way in _HINTS if any(re.search(mark, n) for n in names)), "")


def _unusable(expected: Collection[str], tensors: Dict[str, np.ndarray]) -> List[str]:
    """The same of their values."""
    common = [name for name in expected if name in tensors]
    kinds = {
        "holds other than floating point in {}": [
            name for name in common if tensors[name].dtype.kind != "f"
        ],
        "holds NaN or infinity in {}": [
            name for name in common if not np.isfinite(tensors[name]).all()
        ],
    }
    return [kind.format(some(names)) for kind, names in kinds.items() if names]


def _other_classes(expected: Dict[str, Tuple[int, ...]], tensors: Dict[str, np.ndarray]) -> bool:
    wanted, found = expected.get("fc.weight"), tensors.get("fc.weight")
    if wanted is None:
        return False
    if found is None and "fc.bias" not in tensors:  # weights of a backbone
        return True
    if found is None or found.ndim != 2 or "fc.bias" not in tensors:
        return False
    return found.shape[1] == wanted[1] and found.shape[0] != wanted[0]
