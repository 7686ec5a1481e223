"""What other projects call a network's tensors, and what they are called here.

Our own names are torchvision's and timm's, which are MegEngine/Models' too: ``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer1.0.downsample.0``, ``fc``, and ``weight, bias, running_mean,
running_var`` of a batch normalisation. Deep stems and the shortcuts of ResNet-D are timm's.
"""

import re
from dataclasses import dataclass
from typing import Any, Collection, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from ..errors import WeightsError
from ..readers import StoredTensor
from ..readers.contents import Transposed
from ..readers.pickle_data import shown
from .schemes import (
    RESNET_D_MARK,
    RESNET_D_RULES,
    SCHEMES,
    TIMM_V2_D_MARK,
    TIMM_V2_D_RULES,
    Rules,
)

EPSILON = 1e-5  # of every normalisation here

_MAY_BE_AFFINE = ("caffe2", "detectron2")  # normalisations that are a scale and a bias

# A tensor by which a network is known: what stands before it is what is wrapped around.
_ANCHORS = "|".join(scheme.anchor for scheme in SCHEMES.values() if scheme.anchor)
ANCHOR = re.compile(rf"((?:.*?\.)??)(?:{_ANCHORS})$")


@dataclass(frozen=True)
class Translation:
    """Tensors by our names.

    Args:
        scheme: whose names the file has, one of ``schemes.SCHEMES``.
        tensors: by our names.
        sources: our name -> the file's name, for each of them.
        dropped: the file's names of what is not part of a network, such as step counters.
    """

    scheme: str
    tensors: Dict[str, Any]
    sources: Dict[str, str]
    dropped: Tuple[str, ...]


def translate(tensors: Mapping[str, Any]) -> Translation:
    """Find out whose names these are, and give the tensors ours.

    A name without a rule stays as it is: whoever fills a network finds it left over.

    Raises:
        WeightsError: when two names of the file mean the same tensor, or no network here computes
            what these are of.
    """
    plain = _without_wrapper(tensors)
    name = _scheme_of(plain.values())
    scheme = SCHEMES[name]
    if scheme.refused:
        raise WeightsError(scheme.refused)
    rules = scheme.rules
    if RESNET_D_MARK in plain.values():
        rules += RESNET_D_RULES
    if name == "timm_v2" and TIMM_V2_D_MARK in plain.values():
        rules += TIMM_V2_D_RULES
    sources: Dict[str, str] = {}
    dropped = []
    for source, bare in plain.items():
        if re.search(scheme.dropped, bare):
            dropped.append(source)
            continue
        ours = _renamed(bare, rules)
        if ours in sources:
            both = f"{shown(sources[ours])} and {shown(source)}"
            raise WeightsError(f"{both} are the same tensor, {shown(ours)}")
        sources[ours] = source
    found = {ours: tensors[source] for ours, source in sources.items()}
    return Translation(name, found, sources, tuple(dropped))


def in_our_shapes(scheme: str, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Translated tensors in the shapes that they have here: timm's v2 ends in a convolution."""
    head = tensors.get("fc.weight")
    if scheme == "timm_v2" and head is not None and head.shape[2:] == (1, 1):
        return {**tensors, "fc.weight": head.reshape(head.shape[:2])}
    return tensors


def in_our_order(scheme: str, tensors: Mapping[str, StoredTensor]) -> Dict[str, StoredTensor]:
    """Translated tensors with their axes as here: (out, in, height, width) and (out, in)."""
    if not SCHEMES[scheme].kernels_last:
        return dict(tensors)
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    return {
        name: Transposed(tensor, axes[len(tensor.shape)]) if len(tensor.shape) in axes else tensor
        for name, tensor in tensors.items()
    }


def with_our_norms(scheme: str, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Translated tensors for normalisations as here: with statistics, and our epsilon.

    Caffe2's have a scale and a bias only. Keras's convolutions have biases, which the means take
    over: ``x + b - mean`` is ``x - (mean - b)``; its epsilon is one that the variances take over.
    """
    found = dict(tensors)
    for name, value in tensors.items():
        module, _, part = name.rpartition(".")
        affine = scheme in _MAY_BE_AFFINE and f"{module}.running_mean" not in tensors
        if part == "weight" and value.ndim == 1 and affine:
            found[f"{module}.running_mean"] = np.zeros_like(value)
            found[f"{module}.running_var"] = np.full_like(value, 1 - EPSILON)
        elif part == "bias" and re.search(r"conv\d$|downsample\.0$", module):
            mean = re.sub(r"conv(\d)$", r"bn\1", module).replace("downsample.0", "downsample.1")
            if scheme == "keras" and f"{mean}.running_mean" in tensors:
                found[f"{mean}.running_mean"] = tensors[f"{mean}.running_mean"] - found.pop(name)
        elif part == "running_var":
            found[name] = value + np.float32(SCHEMES[scheme].epsilon - EPSILON)
    return found


def _without_wrapper(names: Collection[str]) -> Dict[str, str]:
    """Every name, and what it is without the ``module.`` of torch's DataParallel."""
    wrapped = all(name.startswith("module.") for name in names)
    return {name: name[len("module.") :] if wrapped else name for name in names}


def _scheme_of(names: Collection[str]) -> str:
    return next(
        scheme
        for scheme, its in SCHEMES.items()
        if any(re.search(its.mark, name) for name in [*names, ""])
    )


def _renamed(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name, count=1)
    return name


# The parts of networks but for their classifiers. What begins so and is not ours is of another one.
_OWN = re.compile(r"(conv\d|bn\d|layer\d+|norm)\.")
# What stands beside a network and is not in the way from an image to its logits.
_BESIDE = re.compile(
    r"(criterion|loss\w*|\w+_loss|data_preprocessor|queue\w*|prototypes|steps?|updates|initted)(\.|$)"
)


# What self-supervised learning puts behind a network.
_PROJECTION = re.compile(r"proj|predictor|mlp|neck|embed|contrast", re.IGNORECASE)


@dataclass(frozen=True)
class Split:
    """Names of a file, in ours, by what they are of."""

    body: Tuple[str, ...]
    classifier: Tuple[str, ...]
    others: Tuple[str, ...]
    unused: Tuple[str, ...]


def split(shapes: Mapping[str, Sequence[int]]) -> Split:
    """Tell a network's body, its classifier, and what is neither.

    A classifier is the one linear layer that takes the last stage's channels, if nothing else with
    weights stands beside it and it is not called a projection; ``fc`` in any case.
    """
    body = [name for name in shapes if _OWN.match(name)]
    rest = [name for name in shapes if name not in set(body)]
    unused = [n for n in rest if _BESIDE.match(n) or ("." not in n and len(shapes[n]) < 2)]
    rest = [name for name in rest if name not in set(unused)]
    if {"fc.weight", "fc.bias"} & set(rest):
        classifier = [name for name in ("fc.weight", "fc.bias") if name in rest]
    else:
        classifier = _linear(rest, shapes, _width(shapes))
    others = [name for name in rest if name not in classifier]
    return Split(tuple(body), tuple(classifier), tuple(others), tuple(unused))


def _width(shapes: Mapping[str, Sequence[int]]) -> int:
    """Channels that come out of the last stage."""
    sizes = [
        shape[0]
        for name, shape in shapes.items()
        if re.match(r"layer\d\.0\.conv[123]\.weight$", name)
    ]
    return max(sizes, default=0)


def _linear(names: Sequence[str], shapes: Mapping[str, Sequence[int]], width: int) -> List[str]:
    """Weight and bias of the only layer among ``names``, if it takes ``width`` numbers."""
    if len(names) != 2 or len({name.rpartition(".")[0] for name in names}) > 1:
        return []
    weight, bias = sorted(names, reverse=True)
    if not (weight.endswith(".weight") and bias.endswith(".bias")) or _PROJECTION.search(weight):
        return []
    rows, columns = (*shapes[weight], 0, 0)[:2]
    fits = columns == width and tuple(shapes[bias]) == (rows,)
    return [weight, bias] if fits and all(n == 1 for n in shapes[weight][2:]) else []
