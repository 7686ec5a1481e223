"""A network with weights, and what goes with them: ready to judge images."""

import logging
from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

import megengine.module as M

from ..data.folder import ImageDataset
from ..errors import DataError, UsageError
from ..preprocess import Preprocess
from .classes import display_names
from .load import PretrainedConfig, Weights, config_of, fill, load_weights, row_config
from .models import ARCHS, arch_of, get_model
from .rows import BY_NAME, default_row

DEFAULT_ARCH = "resnet18"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is meant. What is None is taken from the weights.

    Args:
        arch: a network's or a published row's name.
        model: path of its weights; None for the published ones.
        preprocess: fields that replace the weights' own.
    """

    arch: Optional[str] = None
    model: Optional[str] = None
    num_classes: Optional[int] = None
    preprocess: Optional[Dict[str, Any]] = None


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode.

    Args:
        classes: folder names of the classes in the order of the logits, None where unknown.
        classes_are_guessed: they are those of the data set, not named in the weights' file.
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

    def label(self, folder: ImageDataset) -> ImageDataset:
        """``folder`` with labels in the order of this network's logits, matched by name.

        Raises:
            DataError: when its classes are not this network's.
        """
        known = self.classes is not None and set(folder.classes) <= set(self.classes)
        same_number = len(folder.classes) == self.num_classes
        if not known and same_number and (self.classes is None or self.classes_are_guessed):
            if self.classes is not None:
                logger.warning(
                    "%s: its folders are not named as the weights' classes (%s, …), and are taken "
                    "for them in sorted order; --class-map says otherwise",
                    folder.root,
                    ", ".join(self.classes[:3]),
                )
            return folder  # sorted folders are all there is to go by
        if self.classes is None:
            raise DataError(
                f"{folder.root}: {len(folder.classes)} class folders, but the weights have "
                f"{self.num_classes} classes; say which is which with --class-map"
            )
        try:
            return folder.relabel(self.classes)
        except DataError as error:
            raise DataError(f"{error}; say which is which with --class-map") from None


def open_network(config: NetworkConfig) -> Network:
    """Build a network with its weights.

    A checkpoint tells its network, its classes and its preprocessing. For a file that does not, a
    row's name as ``arch`` tells them, or else what is usual where the file comes from is assumed,
    with a warning.

    Raises:
        UsageError: when the configuration contradicts itself or the file.
        WeightsError: when the weights cannot be had or do not fit.
    """
    if config.model is None:
        return _published(config)
    if config.arch is not None:
        arch_of(config.arch)  # a name that does not exist is told before a large file is read
    return network_from(load_weights(config.model), config)


def network_from(weights: Weights, config: NetworkConfig) -> Network:
    """Build a network with the weights of a file; otherwise as ``open_network``."""
    path = weights.path
    wanted = None if config.arch is None else arch_of(config.arch)
    if wanted and weights.arch and wanted != weights.arch:
        raise UsageError(
            f"{path}: weights of {weights.arch}, not of --arch {config.arch}; leave that out"
        )
    arch = wanted or weights.arch or DEFAULT_ARCH
    if arch not in ARCHS:
        raise UsageError(f"{path}: weights of {arch}, which this version does not know")
    count = weights.num_classes or config.num_classes or 1000
    if config.num_classes not in (None, count):
        raise UsageError(
            f"{path}: has {count} classes, not --num-classes {config.num_classes}; leave that out"
        )
    model = ARCHS[arch](num_classes=count)
    assumed = not (wanted or weights.arch)
    fill(model, weights, name=f"{arch} (assumed; --arch names another)" if assumed else arch)
    model.eval()
    known = _known(config, weights, arch)
    return Network(
        model,
        arch,
        count,
        known.classes,
        weights.classes is None,
        known.preprocess.override(config.preprocess or {}),
    )


def _known(config: NetworkConfig, weights: Weights, arch: str) -> PretrainedConfig:
    """Preprocessing and classes of a file's weights."""
    row = BY_NAME.get(config.arch or "")
    if row and row.num_classes == weights.num_classes:
        its = row_config(row)
        return PretrainedConfig(
            weights.preprocess or its.preprocess, weights.classes or its.classes
        )
    found = config_of(weights, arch)
    if weights.preprocess is None and config.preprocess is None:
        p = found.preprocess
        logger.warning(
            "%s: does not tell how its images are prepared; assuming %s, mean %s, std %s, resize "
            "%s, crop %s; --preprocess says otherwise",
            *(weights.path, p.order, p.mean, p.std, p.resize, p.crop),
        )
    return found


def _published(config: NetworkConfig) -> Network:
    name = DEFAULT_ARCH if config.arch is None else config.arch
    arch = arch_of(name)
    row = BY_NAME.get(name) or default_row(arch)
    if row is None:
        raise UsageError(f"there are no published weights for {arch}; give a file with --model")
    if config.num_classes not in (None, row.num_classes):
        raise UsageError(
            f"the published weights of {arch} have {row.num_classes} classes, not --num-classes "
            f"{config.num_classes}; give a file with --model"
        )
    model = get_model(name, pretrained=True, num_classes=row.num_classes)
    model.eval()
    known = row_config(row)
    preprocess = known.preprocess.override(config.preprocess or {})
    return Network(model, arch, row.num_classes, known.classes, True, preprocess)
