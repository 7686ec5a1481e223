"""What other projects call a network's tensors, and what they are called here.

Our own names are torchvision's and timm's, which are MegEngine/Models' too: ``conv1``, ``bn1``,
``layer1.0.conv1``, ``layer1.0.downsample.0``, ``fc``, and ``weight, bias, running_mean,
running_var`` of a batch normalisation. Deep stems and the shortcuts of ResNet-D are timm's.
"""

import re
from dataclasses import dataclass
from typing import Any, Collection, Dict, Mapping, Tuple

import numpy as np

from ..errors import WeightsError
from ..readers.pickle_data import shown

# The tensor by which a network is known: everything before it is what is wrapped around.
ANCHOR = re.compile(r"((?:.*\.)??)(?:backbone\.)?layer1\.0\.conv1\.weight$")

Rules = Tuple[Tuple[str, str], ...]  # regular expressions and what replaces their first match


@dataclass(frozen=True)
class Translation:
    """Tensors by our names.

    Args:
        scheme: whose names the file has, one of ``SCHEMES``.
        tensors: by our names.
        sources: our name -> the file's name, for each of them.
        dropped: the file's names of what is not part of a network, such as step counters.
    """

    scheme: str
    tensors: Dict[str, Any]
    sources: Dict[str, str]
    dropped: Tuple[str, ...]


@dataclass(frozen=True)
class _Scheme:
    mark: str  # a name that matches this tells the scheme
    rules: Rules
    dropped: str  # names that match this are not of the network


# torch counts the batches that a normalisation has seen; here its momentum needs no count. Its
# AveragedModel counts the networks that it has averaged.
_TORCH_DROPPED = r"(^|\.)num_batches_tracked$|^n_averaged$"

# The first whose mark is found is the file's.
SCHEMES: Dict[str, _Scheme] = {
    "mmpretrain": _Scheme(
        r"^backbone\.",
        (
            (r"^backbone\.stem\.0\.conv\.", "conv1.0."),
            (r"^backbone\.stem\.0\.bn\.", "conv1.1."),
            (r"^backbone\.stem\.1\.conv\.", "conv1.3."),
            (r"^backbone\.stem\.1\.bn\.", "conv1.4."),
            (r"^backbone\.stem\.2\.conv\.", "conv1.6."),
            (r"^backbone\.stem\.2\.bn\.", "bn1."),
            (r"^backbone\.", ""),
            (r"^head\.fc\.", "fc."),
        ),
        _TORCH_DROPPED,
    ),
    "mindcv": _Scheme(
        r"\.moving_mean$",
        (
            (r"\.down_sample\.", ".downsample."),
            (r"\.gamma$", ".weight"),
            (r"\.beta$", ".bias"),
            (r"\.moving_mean$", ".running_mean"),
            (r"\.moving_variance$", ".running_var"),
            (r"^classifier\.", "fc."),
        ),
        # The optimizer's state and counters of a MindSpore training checkpoint.
        r"^(moments|accum|stat)\.|^(epoch_num|step_num|global_step|learning_rate|momentum"
        r"|scale_sense|loss_scale|current_iterator_step|last_overflow_iterator_step)$",
    ),
    # timm's models/resnetv2.py. Its other networks have torchvision's names.
    "timm_v2": _Scheme(
        r"^stages\.0\.blocks\.0\.norm1\.",
        (
            (r"^stem\.conv\.", "conv1."),
            (r"^stem\.conv1\.", "conv1.0."),
            (r"^stem\.norm1\.", "conv1.1."),
            (r"^stem\.conv2\.", "conv1.3."),
            (r"^stem\.norm2\.", "conv1.4."),
            (r"^stem\.conv3\.", "conv1.6."),
            *((rf"^stages\.{stage}\.blocks\.", f"layer{stage + 1}.") for stage in range(4)),
            (r"\.norm([123])\.", r".bn\1."),
            (r"\.downsample\.conv\.", ".downsample.0."),
            (r"^head\.fc\.", "fc."),
        ),
        _TORCH_DROPPED,
    ),
    # github.com/akamaster/pytorch_resnet_cifar10
    "cifar": _Scheme(r"^linear\.weight$", ((r"^linear\.", "fc."),), _TORCH_DROPPED),
    "torchvision": _Scheme("", (), _TORCH_DROPPED),
}

# MMPreTrain's ResNet-D numbers the modules of a shortcut, and its average pool is there only where
# the stride is 2. timm puts an identity in its place.
_RESNET_D_MARK = "backbone.layer2.0.downsample.2.weight"
_RESNET_D_RULES = (
    (r"^layer1\.0\.downsample\.1\.", "layer1.0.downsample.2."),
    (r"^layer1\.0\.downsample\.0\.", "layer1.0.downsample.1."),
)
# In timm's form D of ResNet v2, told by its deep stem, a 2x2 mean or identity precedes a shortcut's
# convolution; it has no name there.
_TIMM_V2_D_MARK = "stem.conv2.weight"
_TIMM_V2_D_RULES = ((r"\.downsample\.0\.", ".downsample.1."),)


def translate(tensors: Mapping[str, Any]) -> Translation:
    """Find out whose names these are, and give the tensors ours.

    A name without a rule stays as it is: whoever fills a network finds it left over.

    Raises:
        WeightsError: when two names of the file mean the same tensor.
    """
    plain = _without_wrapper(tensors)
    name = _scheme_of(plain.values())
    scheme = SCHEMES[name]
    rules = scheme.rules
    if _RESNET_D_MARK in plain.values():
        rules += _RESNET_D_RULES
    if name == "timm_v2" and _TIMM_V2_D_MARK in plain.values():
        rules += _TIMM_V2_D_RULES
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
