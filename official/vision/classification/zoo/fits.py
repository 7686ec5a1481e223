"""Which networks a file's tensors fit: names and shapes decide."""

import re
from typing import Dict, List, Mapping, Optional, Tuple

import numpy as np

from ..readers.pickle_data import shown
from .models import ARCHS
from .weights import CLASSIFIER, Weights

STRIDE_FIRST = "resnetv1a"  # how the names of networks begin whose stride is on the first 1x1

Shape = Tuple[int, ...]


def network_of(weights: Weights) -> Optional[str]:
    """The first network of ours that the tensors fill, whatever their classifier; None for none.

    Networks are built to be compared, but only those whose name has the file's depth. v1a has the
    shapes of v1, and is meant only by the files of those who have their stride there.
    """
    depth = _depth(weights.tensors)
    named = re.compile(rf"(?<!\d){depth}(?!\d)")
    body = {name: value for name, value in weights.tensors.items() if name not in CLASSIFIER}
    for arch, build in ARCHS.items():
        if depth and named.search(arch) and arch.startswith(STRIDE_FIRST) == weights.stride_first:
            shapes = {
                name: tuple(value.shape)
                for name, value in build(num_classes=1).named_tensors()
                if name not in CLASSIFIER
            }
            if not misfits(shapes, body):
                return arch
    return None


def _depth(names: Mapping[str, object]) -> int:
    """Layers with weights from image to logits, as the names of networks count them; 0: no idea."""
    blocks = {match.group() for match in map(re.compile(r"layer\d\.\d+").match, names) if match}
    layers = 3 if "layer1.0.conv3.weight" in names else 2
    return layers * len(blocks) + 2 if blocks else 0


def misfits(expected: Dict[str, Tuple[int, ...]], tensors: Dict[str, np.ndarray]) -> List[str]:
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
    return [kind.format(some(names)) for kind, names in kinds.items() if names]


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
    if len(expected) == 2 and len(found) == 4:  # a classifier that is a 1x1 convolution
        return found == (*expected, 1, 1)
    vector = [size for size in expected if size != 1]
    return len(vector) <= 1 and [size for size in found if size != 1] == vector


def some(names: List[str]) -> str:
    first = ", ".join(names[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
