"""What a network's tensors are called in torchvision, timm and MMPreTrain, and their shapes there.

The other way round than ``zoo/names.py``, which is asked whether it finds the way back.
"""

import re
from typing import Dict, NamedTuple, Pattern, Tuple

import numpy as np

from ..errors import UsageError
from ..zoo.names import translate

Rules = Tuple[Tuple[str, str], ...]

_TORCHVISION = r"resnet(18|34|50|101|152)|resnext50_32x4d|resnext101_(32x8d|64x4d)|wide_resnet\d+_2"
_TIMM = r"(?!resnetv1a|resnetv2_(50|101)$)(?!.*_cifar$).+"
_MMPRETRAIN = (
    r"resnet(v1[acd])?(18|34|50|101|152)(_cifar)?|resnext(50|101|152)_32x[48]d|wide_resnet\d+_2"
)

_STEM: Rules = tuple(
    (rf"^{ours}\.", f"backbone.stem.{theirs}.")
    for ours, theirs in (
        *((f"conv1.{3 * index}", f"{index}.conv") for index in range(3)),
        *((f"conv1.{3 * index + 1}", f"{index}.bn") for index in range(2)),
        ("bn1", "2.bn"),
    )
)
_TIMM_STEM: Rules = (
    (r"^conv1\.0\.", "stem.conv1."),
    (r"^conv1\.1\.", "stem.norm1."),
    (r"^conv1\.3\.", "stem.conv2."),
    (r"^conv1\.4\.", "stem.norm2."),
    (r"^conv1\.6\.", "stem.conv3."),
)
_TIMM_V2: Rules = (
    (r"^conv1\.weight$", "stem.conv.weight"),
    *((rf"^layer{stage + 1}\.", f"stages.{stage}.blocks.") for stage in range(4)),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.[01]\.", ".downsample.conv."),
    (r"^fc\.", "head.fc."),
)


class _Project(NamedTuple):
    """Which networks it has, by our names, and how one is made there."""

    archs: Pattern[str]
    build: str


PROJECTS: Dict[str, _Project] = {
    "torchvision": _Project(re.compile(_TORCHVISION), "torchvision.models.{0}(num_classes={1})"),
    "timm": _Project(re.compile(_TIMM), "timm.create_model({0!r}, num_classes={1})"),
    "mmpretrain": _Project(re.compile(_MMPRETRAIN), "an ImageClassifier with the backbone of {0}"),
}


def renamed(project: str, arch: str, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """A network's tensors with the names and shapes that ``project`` has for them.

    A grouped convolution is ``(out, in / groups, k, k)``, and the classifier of timm's ResNet v2 a
    1x1 convolution.

    Raises:
        UsageError: when the project has no such network.
    """
    if not PROJECTS[project].archs.fullmatch(arch):
        others = [name for name, each in PROJECTS.items() if each.archs.fullmatch(arch)]
        way_out = f"--to {' or '.join(others)} has" if others else "none of --to's projects has"
        raise UsageError(
            f"--to {project}: has no network that computes what {arch} does; {way_out}"
        )
    rules = _rules(project, arch, tensors)
    found = {}
    for name, value in in_four_dimensions(tensors).items():
        theirs = name
        for pattern, replacement in rules:
            theirs = re.sub(pattern, replacement, theirs, count=1)
        if theirs == "head.fc.weight" and project == "timm":
            value = value[:, :, None, None]
        found[theirs] = value
    if translate(found).tensors.keys() != tensors.keys():
        raise AssertionError(f"{project}'s names of {arch} do not lead back to ours")
    return found


def in_four_dimensions(tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """Grouped convolutions as other frameworks have them: (out, in / groups, k, k)."""
    return {
        name: value.reshape(-1, *value.shape[2:]) if value.ndim == 5 else value
        for name, value in tensors.items()
    }


def recipe_for(project: str, arch: str, num_classes: int) -> str:
    """How the network is made there."""
    name = arch
    if project == "timm":
        name = re.sub(r"^resnetv1([cds])(\d+)$", r"resnet\2\1", arch).replace("_timm", "")
    return PROJECTS[project].build.format(name, num_classes)


def _rules(project: str, arch: str, tensors: Dict[str, np.ndarray]) -> Rules:
    deep = "conv1.0.weight" in tensors
    if project == "mmpretrain":
        # Its ResNet-D has no identity in place of the mean where the stride is 1.
        averaged = "layer2.0.downsample.2.weight" in tensors
        shortcut: Rules = tuple(
            (rf"^layer1\.0\.downsample\.{n + 1}\.", f"layer1.0.downsample.{n}.") for n in (0, 1)
        )
        return (
            *(_STEM if deep else ()),
            *(shortcut if averaged else ()),
            (r"^fc\.", "head.fc."),
            (r"^(conv1|bn1|layer\d)\.", r"backbone.\1."),
        )
    if project == "timm" and arch.startswith("resnetv2"):
        return (*(_TIMM_STEM if deep else ()), *_TIMM_V2)
    return ()
