"""Filling a network with the weights of a file, every tensor or none."""

import logging
from typing import Collection, Dict, List, Tuple

import megengine.module as M
import numpy as np

from ..errors import WeightsError
from ..readers.pickle_data import shown
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
    misfits = _misfits(expected, tensors)
    problems = misfits + _unusable(expected, tensors)
    if misfits:
        problems.append("is it of another network?")
    if problems:
        raise WeightsError(f"{weights.path}: does not fit {name}: {'; '.join(problems)}")
    return {
        key: np.ascontiguousarray(tensors[key], np.float32).reshape(shape)
        for key, shape in expected.items()
    }


def _misfits(expected: Dict[str, Tuple[int, ...]], tensors: Dict[str, np.ndarray]) -> List[str]:
    """Names and shapes that keep ``tensors`` from filling a network, one phrase per kind."""
    kinds = {
        "lacks {}": [name for name in expected if name not in tensors],
        "has {} besides": [shown(name) for name in tensors if name not in expected],
        "differs where {}": [
            f"{name} is {tensors[name].shape}, not {_plain(shape)}"
            for name, shape in expected.items()
            if name in tensors and not _same_shape(tensors[name].shape, shape)
        ],
    }
    return [kind.format(_some(names)) for kind, names in kinds.items() if names]


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
    return [kind.format(_some(names)) for kind, names in kinds.items() if names]


def _plain(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """A BN tensor's shape as its state dict has it: (C,) for MegEngine's own (1, C, 1, 1)."""
    return (shape[1],) if len(shape) == 4 and shape == (1, shape[1], 1, 1) else shape


def _same_shape(found: Tuple[int, ...], expected: Tuple[int, ...]) -> bool:
    """Equal but for how MegEngine shapes the same numbers.

    BN tensors are (C,) or (1, C, 1, 1) by the version that saved them, and a grouped convolution
    is (groups, out / groups, in / groups, k, k) where others have (out, in / groups, k, k).
    """
    found, expected = tuple(found), tuple(expected)
    if found == expected:
        return True
    if len(expected) == 5:
        groups, channels, *kernel = expected
        return found == (groups * channels, *kernel)
    vector = [size for size in expected if size != 1]
    return len(vector) <= 1 and [size for size in found if size != 1] == vector


def _other_classes(expected: Dict[str, Tuple[int, ...]], tensors: Dict[str, np.ndarray]) -> bool:
    wanted, found = expected.get("fc.weight"), tensors.get("fc.weight")
    if wanted is None:
        return False
    if found is None and "fc.bias" not in tensors:  # weights of a backbone
        return True
    if found is None or found.ndim != 2 or "fc.bias" not in tensors:
        return False
    return found.shape[1] == wanted[1] and found.shape[0] != wanted[0]


def _some(names: List[str]) -> str:
    first = ", ".join(names[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
