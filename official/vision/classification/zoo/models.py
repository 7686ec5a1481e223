"""Networks by name."""

from fnmatch import fnmatch
from typing import Any, List, Optional

import megengine.module as M

from ..errors import UsageError, explained_threads
from ..resnet import ARCHS
from ..resnet.pretrained import Pretrained
from ..text import unknown
from .rows import BY_NAME, default_row


def list_models(
    pattern: Optional[str] = None,
    pretrained: Optional[bool] = None,
    min_top1: Optional[float] = None,
    commercial: Optional[bool] = None,
) -> List[str]:
    """Names that ``get_model`` takes: networks and published rows.

    Args:
        pattern: a shell pattern such as ``"resnet*_in1k"``.
        pretrained: True for names with weights, False for those without.
        min_top1: rows of at least this published accuracy in per cent, the most accurate first.
        commercial: True for rows whose licence allows commercial use, False for the others.

    ``official.vision.classification.zoo.ROWS`` has all that is known of each row.
    """
    names = sorted({*ARCHS, *BY_NAME})
    if pattern is not None:
        names = [name for name in names if fnmatch(name, pattern)]
    if pretrained is not None:
        names = [name for name in names if _has_weights(name) == pretrained]
    if commercial is not None:
        names = [name for name in names if name in BY_NAME]
        names = [name for name in names if BY_NAME[name].commercial == commercial]
    if min_top1 is not None:
        top1 = {name: BY_NAME[name].top1 or 0.0 for name in names if name in BY_NAME}
        names = sorted(top1, key=lambda name: -top1[name])
        names = [name for name in names if top1[name] >= min_top1]
    return names


def get_model(name: str, pretrained: Pretrained = False, **kwargs: Any) -> M.Module:
    """Build the network ``name``; ``kwargs`` are ``compiled`` and those of ``ResNet``.

    Args:
        name: a network (``resnet50``) or a row (``resnet50_fbaug_in1k``).
        pretrained: False; True for the row's weights, or a network's default ones; the name of
            another row; or the path of a weight file.

    Raises:
        UsageError: for an unknown name, with the nearest ones; in a thread that MegEngine was not
            imported in.
        WeightsError: when the weights cannot be had or do not fit.
    """
    arch = arch_of(name)
    if name in BY_NAME:
        kwargs.setdefault("num_classes", BY_NAME[name].num_classes)
        pretrained = name if pretrained is True else pretrained
    with explained_threads():
        return ARCHS[arch](pretrained=pretrained, **kwargs)


def arch_of(name: str) -> str:
    """The network behind a name.

    Raises:
        UsageError: for an unknown name, with the nearest ones.
    """
    if name in BY_NAME:
        return BY_NAME[name].arch
    if name in ARCHS:
        return name
    known = list(dict.fromkeys([*ARCHS, *BY_NAME]))
    raise UsageError(unknown("network", name, known, "list_models() and README.md name all"))


def image_size(arch: str) -> int:
    """Edge in pixels of the images that a network is made for; it takes others too."""
    return 32 if arch.endswith("_cifar") else 224


def _has_weights(name: str) -> bool:
    return name in BY_NAME or default_row(name) is not None
