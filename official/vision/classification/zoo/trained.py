"""A network with its weights: the one place where it is settled what they are.

Which file or published row is meant, which network it fits, how its images are prepared, what its
logits mean, and how each of these is known. The order is the same for every command: what a flag
says, then what the file says, then what the published row says, then an assumption, which is told
in one line.
"""

import logging
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

import megengine.module as M

from ..errors import UsageError
from ..ops.quantize import LayerRanges
from ..preprocess import Preprocess
from ..resnet.pretrained import Pretrained
from ..text import nearest
from .classes import (
    dataset_classes,
    default_classes,
    display_names,
    match_classes,
    standard_names,
)
from .download import fetch
from .fill import fill, fitting_tensors
from .fits import STRIDE_FIRST, network_of
from .models import ARCHS, arch_of
from .remote import fetched, is_address
from .rows import BEST, BY_NAME, Row, best_row, default_row
from .rows.row import licence_notice
from .usual import preprocess_of, sized
from .weights import Weights, load_weights

DEFAULT_ARCH = "resnet18"
_SUFFIXES = ".bin .ckpt .h5 .npz .pkl .pt .pth .safetensors .tar .th .zip".split()

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkConfig:
    """Which trained network is meant. What is None is taken from the weights.

    Args:
        arch: a network's or a published row's name.
        model: the path or the address of its weights, or a published row's name; None for the row
            that ``arch`` names, or else for the network's first row.
        preprocess: fields that replace the weights' own.
        average: take the running mean of the weights, where the file has one beside them.
        entry: which entry of the file holds the weights; None for the usual one.
        features_only: the classifier is not used, and a file without one will do.
    """

    arch: Optional[str] = None
    model: Optional[str] = None
    num_classes: Optional[int] = None
    preprocess: Optional[Dict[str, Any]] = None
    average: bool = False
    entry: Optional[str] = None
    features_only: bool = False


@dataclass(frozen=True)
class PretrainedConfig:
    """What is known of trained weights beside their values.

    Args:
        preprocess: how their images are prepared.
        classes: folder names in the order of the logits, None where unknown.
        preprocess_by, classes_by: how these are known: "flag", "file", "row" or "assumed".
        arch: the network.
        num_classes: logits; None where the weights have no classifier.
        source: the file's path or the row's name, for messages.
        held_out: which training images were not trained on; see ``data/splits.py``.
        licence: of the weights, as the file or the published row states it; empty where unknown.
        int8_ranges: what the file states that int8 is calibrated by.
    """

    preprocess: Preprocess
    classes: Optional[Tuple[str, ...]]
    preprocess_by: str = "file"
    classes_by: str = "file"
    arch: str = ""
    num_classes: Optional[int] = None
    source: str = ""
    held_out: Optional[Dict[str, Any]] = None
    licence: str = ""
    int8_ranges: Optional[LayerRanges] = None


@dataclass(frozen=True)
class Network:
    """A network in evaluation mode, and what is known of its weights."""

    model: M.Module
    config: PretrainedConfig

    @property
    def arch(self) -> str:
        return self.config.arch

    @property
    def num_classes(self) -> int:
        return self.config.num_classes or 0

    @property
    def classes(self) -> Optional[Tuple[str, ...]]:
        """Folder names of the classes in the order of the logits, None where unknown."""
        return self.config.classes

    @property
    def preprocess(self) -> Preprocess:
        """What its images need."""
        return self.config.preprocess

    @property
    def names(self) -> Tuple[str, ...]:
        """What to call each class."""
        return display_names(self.classes, self.num_classes)


class Source(NamedTuple):
    """Weights that are known, and not yet in a network.

    Args:
        weights: of a file; None for a published row's, which are fetched when they are needed.
        arch_by: whether the network's name is a flag's, the file's or assumed.
    """

    config: PretrainedConfig
    weights: Optional[Weights]
    row: Optional[Row]
    arch_by: str

    def weights_for(self, model: M.Module) -> Weights:
        """The tensors that are to fill ``model``."""
        if self.weights is not None:
            return self.weights
        assert self.row is not None  # there is always one of the two
        return load_weights(_fetch(model, self.row))

    @property
    def arch_for_messages(self) -> str:
        arch = self.config.arch
        return f"{arch} (assumed; --arch names another)" if self.arch_by == "assumed" else arch


def open_network(config: NetworkConfig) -> Network:
    """Build a network with its weights, in evaluation mode.

    Raises:
        UsageError: when the configuration contradicts itself or the file.
        WeightsError: when the weights cannot be had or do not fit.
    """
    return network_from(look_up(config), config.features_only)


def network_from(source: Source, features_only: bool = False) -> Network:
    """Build the network of weights that ``look_up`` has found; otherwise as ``open_network``."""
    headless = features_only and source.config.num_classes is None
    model = ARCHS[source.config.arch](num_classes=source.config.num_classes or 1000)
    fill(model, source.weights_for(model), headless, source.arch_for_messages)
    if headless:
        logger.warning("%s: has no classifier; its features need none", source.config.source)
    model.eval()
    return Network(model, source.config)


def untrained_network(config: NetworkConfig) -> Network:
    """A network as it is before training, for what depends on its form only, such as speed."""
    name = DEFAULT_ARCH if config.arch is None else config.arch
    arch = arch_of(name)
    row = BY_NAME.get(name) or default_row(arch)
    count = config.num_classes or (row.num_classes if row else 1000)
    model = ARCHS[arch](num_classes=count)
    model.eval()
    preprocess = row.preprocess if row else sized(Preprocess(), arch)
    preprocess = preprocess.override(config.preprocess or {})
    return Network(model, PretrainedConfig(preprocess, None, "assumed", "assumed", arch, count))


def fill_pretrained(model: M.Module, arch: str, pretrained: Pretrained) -> None:
    """What ``pretrained=`` does; see ``resnet.pretrained``.

    Raises:
        UsageError: when there are no such weights.
        WeightsError: when they cannot be had or do not fit.
    """
    if pretrained is True and default_row(arch) is None:
        raise UsageError(
            f"there are no published weights for {arch}; give the path of a weight file"
        )
    source = look_up(NetworkConfig(arch, None if pretrained is True else str(pretrained)))
    fill(model, source.weights_for(model), new_head=True, name=arch)
    config = source.config
    if config.num_classes is None:
        logger.warning("%s: has no classifier; the network's is as it was drawn", config.source)
    if model.fc.out_features != config.num_classes:  # a new classifier, for other classes
        config = replace(config, classes=None, num_classes=model.fc.out_features)
    model.pretrained_config = config


def start_from(model: M.Module, source: Source, classes: Tuple[str, ...]) -> str:
    """Fill a network that is to be trained on ``classes``; return what was done, in a line.

    The classifier is kept where the weights have these classes, in any order; they are known by
    their names and not by their number. Else it starts anew.

    Raises:
        WeightsError: when the weights cannot be had or do not fit.
    """
    config = source.config
    weights = source.weights_for(model)
    found = match_classes(classes, config.classes) if config.classes else None
    if found is not None and len(found) == config.num_classes:
        order = "" if found == sorted(found) else ", in the order of this data"
        fill(model, weights.with_classes(found), name=source.arch_for_messages)
        return f"starts from {config.source}: its {len(found)} classes are kept{order}"
    fill(model, weights.without_classifier(), new_head=True, name=source.arch_for_messages)
    known = "names no classes" if config.classes is None else "has other classes"
    if config.num_classes is None:
        known = "has no classifier"
    return (
        f"starts from {config.source}, which {known}: the classifier starts anew for "
        f"{len(classes)} classes"
    )


def look_up(config: NetworkConfig, say: bool = True) -> Source:
    """Settle which weights are meant and what is known of them. A published row is not fetched.

    Args:
        say: tell what is assumed.

    Raises:
        UsageError: when the configuration contradicts itself or the file.
        WeightsError: when the file cannot be read.
    """
    arch = None if config.arch is None else arch_of(config.arch)  # before a large file is read
    if config.model is None or config.model in BY_NAME or config.model == BEST:
        return _of_row(config, arch)
    file = config.model
    if is_address(file):
        file = str(fetched(file, say))
    elif not _is_path(file):
        rows = [row.name for row in BY_NAME.values() if arch in (None, row.arch)]
        few = nearest(file, rows, 3) or rows[:3]
        more = f" and {len(rows) - len(few)} more" if len(rows) > len(few) else ""
        raise UsageError(
            f"{file!r}: neither a file nor a row of {arch or 'any network'} "
            f"({', '.join(few) or 'which has none'}{more})"
        )
    return describe(load_weights(file, config.average, config.entry), config, say)


def _is_path(name: str) -> bool:
    """Whether a file is meant, which need not exist; a row's name may have dots in it, too."""
    return "/" in name or Path(name).suffix in _SUFFIXES or Path(name).exists()


def _of_row(config: NetworkConfig, arch: Optional[str]) -> Source:
    arch = arch or (BY_NAME[config.model].arch if config.model in BY_NAME else DEFAULT_ARCH)
    row = BY_NAME.get(config.model or config.arch or "") or default_row(arch)
    if row is not None and config.model == BEST:
        row = best_row(arch)
        if row is None:
            rows = ", ".join(each.name for each in BY_NAME.values() if each.arch == arch)
            raise UsageError(
                f"no published weights of {arch} may be used commercially; name those that are "
                f"wanted: {rows}"
            )
    if row is None:
        raise UsageError(f"there are no published weights for {arch}; give a file with --model")
    if row.arch != arch:
        raise UsageError(f"{row.name} are weights of {row.arch}, not of {arch}")
    if config.num_classes not in (None, row.num_classes):
        raise UsageError(
            f"the published weights of {arch} have {row.num_classes} classes, not --num-classes "
            f"{config.num_classes}; give a file with --model"
        )
    known = PretrainedConfig(
        row.preprocess.override(config.preprocess or {}),
        dataset_classes(row.dataset),
        "flag" if config.preprocess else "row",
        "row",
        *(arch, row.num_classes, row.name),
        licence=row.licence,
    )
    return Source(known, None, row, "flag")


def describe(weights: Weights, config: NetworkConfig, say: bool = True) -> Source:
    """What is known of the weights of a file; otherwise as ``look_up``.

    Files of networks other than our own rarely tell. Those that PyTorch, MMPreTrain or MindCV
    write are taken to need what that project's networks usually need, at the size that the
    network is made for.
    """
    path, wanted = weights.path, None if config.arch is None else arch_of(config.arch)
    if wanted and weights.arch and wanted != weights.arch:
        raise UsageError(
            f"{path}: weights of {weights.arch}, not of --arch {config.arch}; leave that out"
        )
    told = weights.arch or (None if wanted else network_of(weights))
    arch = wanted or told or DEFAULT_ARCH
    if arch not in ARCHS:
        raise UsageError(f"{path}: weights of {arch}, which this version does not know")
    count = weights.num_classes or config.num_classes
    if config.num_classes not in (None, count):
        raise UsageError(
            f"{path}: has {count} classes, not --num-classes {config.num_classes}; leave that out"
        )
    row = BY_NAME.get(config.arch or "")
    row = row if row and row.num_classes == count else None
    preprocess, preprocess_by = preprocess_of(weights, row, arch)
    if config.preprocess is not None:
        preprocess, preprocess_by = preprocess.override(config.preprocess), "flag"
    classes, classes_by = _classes(weights, row)
    licence = weights.licence or (row.licence if row else "")
    known = PretrainedConfig(
        *(preprocess, classes, preprocess_by, classes_by, arch, count, str(path)),
        *(weights.held_out, licence, weights.int8_ranges),
    )
    if say:
        if weights.remark:
            logger.warning("%s: %s", path, weights.remark)
        if weights.stride_first and "layer1.0.conv3.weight" in weights.tensors:
            _say_where_strides_are(path, arch)
        _say_assumptions(known)
        notice = licence_notice(row.name if row else str(path), licence)
        if notice is not None:
            logger.warning("%s", notice)
    return Source(known, weights, row, "flag" if wanted else "file" if told else "assumed")


def _classes(weights: Weights, row: Optional[Row]) -> Tuple[Optional[Tuple[str, ...]], str]:
    """Folder names in the order of the logits, and how they are known."""
    if weights.classes:
        return standard_names(weights.classes), "file"
    if row:
        return dataset_classes(row.dataset), "row"
    if weights.scheme == "cifar" and weights.num_classes == 10:
        return dataset_classes("CIFAR-10"), "assumed"
    return default_classes(weights.num_classes or 0), "assumed"


def _say_where_strides_are(path: Path, arch: str) -> None:
    """A network that halves its maps elsewhere gives other answers to the same weights."""
    if not arch.startswith(STRIDE_FIRST):
        logger.warning(
            "%s: its network has its strides at the first 1x1 convolutions, %s at the 3x3 ones: "
            "the weights fit, but logits differ; --arch %s50, 101 or 152 has them there",
            *(path, arch, STRIDE_FIRST),
        )


def _say_assumptions(known: PretrainedConfig) -> None:
    unsaid, assumed, flag = [], [], ""
    if known.preprocess_by == "assumed":
        p = known.preprocess
        unsaid.append("how its images are prepared")
        colours = f"{p.order}, mean {p.mean}, std {p.std}"
        assumed.append(f"{colours}, resize {p.resize} by {p.library}, crop {p.crop}")
        flag = "; --preprocess says otherwise"
    if known.classes_by == "assumed" and known.num_classes == 1000:
        unsaid.append("which classes it has")
        assumed.append("ImageNet's 1,000 classes")
    if unsaid:
        logger.warning(
            "%s: does not say %s; assuming %s%s",
            *(known.source, " nor ".join(unsaid), ", and ".join(assumed), flag),
        )


def _fetch(model: M.Module, row: Row) -> Path:
    """The row's file, for a network that is built as its own is but for the classifier."""
    if _body_size(model) != row.params - row.num_classes * (model.fc.in_features + 1):
        raise UsageError(
            f"{row.name}: weights of {row.arch} as it is by default, and this one is built "
            "otherwise, as with in_channels or paper_form; leave that out, or give a weight file"
        )

    def check(path: Path) -> None:
        fitting_tensors(model, load_weights(path), new_head=True, name=row.arch)

    # Twice what the parameters take, for files that hold more than one network needs.
    return fetch(row, check, max_bytes=8 * row.params + (64 << 20))


def _body_size(model: M.Module) -> int:
    """Numbers in everything but the classifier and the statistics of normalisations."""
    return sum(
        prod(value.shape)
        for name, value in model.named_tensors()
        if not name.startswith("fc.") and ".running_" not in name
    )
