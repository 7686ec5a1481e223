"""A network with weights, and what goes with them: ready to judge images."""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import megengine.module as M

from ..data.folder import ImageFolder
from ..errors import DataError, UsageError
from ..preprocess import Preprocess
from ..zoo.cards import BY_NAME, default_card
from ..zoo.classes import default_classes, display_names
from ..zoo.load import fill, load_weights
from ..zoo.models import ARCHS, arch_of, get_model

DEFAULT_ARCH = "resnet18"


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode.

    Args:
        classes: folder names of the classes in the order of the logits, None where unknown.
        classes_are_guessed: they come from the number of classes, not from the weights.
        preprocess: what its images need.
    """

    model: M.Module
    arch: str
    num_classes: int
    classes: Optional[Tuple[str, ...]]
    classes_are_guessed: bool
    preprocess: Preprocess

    @property
    def names(self) -> Tuple[str, ...]:
        """What to call each class."""
        return display_names(self.classes, self.num_classes)

    def label(self, folder: ImageFolder) -> ImageFolder:
        """``folder`` with labels in the order of this network's logits.

        Raises:
            DataError: when its classes are not this network's.
        """
        known = self.classes is not None and set(folder.classes) <= set(self.classes)
        same_number = len(folder.classes) == self.num_classes
        if not known and same_number and (self.classes is None or self.classes_are_guessed):
            return folder  # sorted folders are all there is to go by
        if self.classes is None:
            raise DataError(
                f"{folder.root}: {len(folder.classes)} class folders, but the weights have "
                f"{self.num_classes} classes"
            )
        return folder.relabel(self.classes)


def open_network(
    arch: Optional[str],
    path: Optional[str],
    num_classes: Optional[int] = None,
    preprocess: Optional[Dict[str, Any]] = None,
) -> Network:
    """Build ``arch`` with the weights in ``path``, or its published ones where that is None.

    What is not given is taken from the weights: a checkpoint tells its network, its classes and
    its preprocessing. ``preprocess`` replaces some or all fields of the latter.

    Raises:
        UsageError: when the arguments contradict each other or the file.
        WeightsError: when the weights cannot be had or do not fit.
    """
    if path is None:
        return _published(arch or DEFAULT_ARCH, num_classes, preprocess)
    wanted = arch_of(arch) if arch else None
    weights = load_weights(path)
    if wanted and weights.arch and wanted != weights.arch:
        raise UsageError(f"{path}: weights of {weights.arch}, not of --arch {arch}")
    found = wanted or weights.arch or DEFAULT_ARCH
    if found not in ARCHS:
        raise UsageError(f"{path}: weights of {found}, which this version does not know")
    count = weights.num_classes or num_classes or 1000
    if num_classes not in (None, count):
        raise UsageError(f"{path}: has {count} classes, not --num-classes {num_classes}")
    model = ARCHS[found](num_classes=count)
    fill(model, weights)
    model.eval()
    card = BY_NAME.get(arch or "") or default_card(found)
    own = weights.preprocess or (card.preprocess if card else Preprocess())
    return Network(
        model,
        found,
        count,
        weights.classes or default_classes(count),
        weights.classes is None,
        own.override(preprocess or {}),
    )


def _published(
    name: str, num_classes: Optional[int], preprocess: Optional[Dict[str, Any]]
) -> Network:
    arch = arch_of(name)
    card = BY_NAME.get(name) or default_card(arch)
    if card is None:
        raise UsageError(f"there are no published weights for {arch}; give a file with --model")
    if num_classes not in (None, card.num_classes):
        raise UsageError(
            f"the published weights of {arch} have {card.num_classes} classes, not --num-classes "
            f"{num_classes}; give a file with --model"
        )
    model = get_model(name, pretrained=True)
    model.eval()
    return Network(
        model,
        arch,
        card.num_classes,
        default_classes(card.num_classes),
        True,
        card.preprocess.override(preprocess or {}),
    )
