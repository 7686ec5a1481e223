"""Filling a network with the weights of a file, every tensor or none."""

import json
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Tuple, Union

import megengine.module as M
import numpy as np

from ..errors import UsageError, WeightsError
from ..preprocess import PRESETS, Preprocess
from ..readers import WeightFile, read_weights
from ..readers.pickle_data import shown
from ..resnet.pretrained import Pretrained
from .classes import dataset_classes, default_classes
from .download import fetch
from .models import image_size
from .names import translate
from .rows import BY_NAME, Row, default_row

MODEL_PREFIX = "model."  # of a network's tensors in a checkpoint, beside the optimizer's
AVERAGE_PREFIX = "average."  # of their running means, where the recipe has ``ema``
DESCRIPTION = "resnet"  # the metadata entry of our own files: a JSON object

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A network's tensors by our names, and what their file says about them.

    Args:
        format: of the file; see ``readers``.
        scheme: whose names the file has; see ``names``. "ours" for the project's own files.
        sources: our name -> the file's; dropped: the file's names of what is no weight.
    """

    path: Path
    tensors: Dict[str, np.ndarray]
    arch: Optional[str] = None
    classes: Optional[Tuple[str, ...]] = None
    preprocess: Optional[Preprocess] = None
    format: str = ""
    scheme: str = "ours"
    sources: Dict[str, str] = field(default_factory=dict)
    dropped: Tuple[str, ...] = ()

    @property
    def num_classes(self) -> Optional[int]:
        """Rows of the classifier."""
        head = self.tensors.get("fc.weight")
        return None if head is None or head.ndim != 2 else len(head)


@dataclass(frozen=True)
class PretrainedConfig:
    """How the images of a trained network are prepared, and what its logits mean.

    Args:
        classes: folder names in the order of the logits, None where unknown.
    """

    preprocess: Preprocess
    classes: Optional[Tuple[str, ...]]


def load_weights(path: Union[str, Path], average: bool = False) -> Weights:
    """Read a weight file of any kind this project knows, or one of its own checkpoints.

    Args:
        average: the running means of a checkpoint's weights in place of the weights.

    Raises:
        WeightsError: naming the file and what is wrong with it.
    """
    path = Path(path)
    file = read_weights(path)
    averages = strip_prefix(AVERAGE_PREFIX, file.tensors) if DESCRIPTION in file.metadata else {}
    if average and not averages:
        raise WeightsError(
            f"{path}: has no averaged weights; the checkpoints of a recipe with ema have them"
        )
    if DESCRIPTION not in file.metadata:
        return _translated(path, file)
    description = _parse(path, file.metadata[DESCRIPTION])
    weights = Weights(
        path,
        averages if average else strip_prefix(MODEL_PREFIX, file.tensors) or file.tensors,
        arch=description.get("arch"),
        classes=tuple(description.get("classes") or ()) or None,
        preprocess=_preprocess(path, description.get("preprocess")),
        format=file.format,
    )
    if weights.classes and weights.num_classes not in (None, len(weights.classes)):
        raise _damaged(path, f"{len(weights.classes)} names for {weights.num_classes} classes")
    return weights


def _translated(path: Path, file: WeightFile) -> Weights:
    """The weights in a file of another project, or in one that has only tensors."""
    try:
        found = translate(file.tensors)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None
    return Weights(
        path,
        found.tensors,
        format=file.format,
        scheme=found.scheme,
        sources=found.sources,
        dropped=found.dropped,
    )


def config_of(weights: Weights, arch: str) -> PretrainedConfig:
    """What a file says of its images and classes, or what is usual where it comes from.

    Files of networks other than our own rarely tell. Those that PyTorch, MMPreTrain or MindCV
    write are taken to need what that project's networks usually need, at the size ``arch`` is
    made for.
    """
    usual = PRESETS[_usual_preset(weights)]
    if image_size(arch) != usual.crop:
        usual = replace(usual, resize=image_size(arch), crop=image_size(arch))
    classes = weights.classes or default_classes(weights.num_classes or 0)
    if classes is None and weights.scheme == "cifar" and weights.num_classes == 10:
        classes = dataset_classes("CIFAR-10")
    return PretrainedConfig(weights.preprocess or usual, classes)


def row_config(row: Row) -> PretrainedConfig:
    """What a published row says of its images and classes."""
    return PretrainedConfig(row.preprocess, dataset_classes(row.dataset))


def _usual_preset(weights: Weights) -> str:
    if weights.scheme in ("mmpretrain", "mindcv"):  # both resize with OpenCV
        return "mmpretrain"
    return "megengine" if weights.format == "megengine-pickle" else "torchvision"


def strip_prefix(prefix: str, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The tensors whose names start with ``prefix``, by the rest of their names."""
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }


def fill(
    model: M.Module, weights: Weights, new_head: bool = False, name: str = "the network"
) -> None:
    """Give ``model`` the weights after checking every name, shape and value.

    Args:
        new_head: leave the classifier as it is where only the number of classes differs.
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
        tensors.update({key: own[key].numpy() for key in ("fc.weight", "fc.bias")})
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


def fill_pretrained(model: M.Module, arch: str, pretrained: Pretrained) -> None:
    """What ``pretrained=`` does; see ``resnet.pretrained``.

    Raises:
        UsageError: when there are no such weights.
        WeightsError: when they cannot be had or do not fit.
    """
    row = find_row(arch, pretrained)
    weights = load_weights(Path(str(pretrained)) if row is None else _fetch(model, row))
    fill(model, weights, new_head=True, name=arch)
    config = config_of(weights, arch) if row is None else row_config(row)
    if model.fc.out_features != weights.num_classes:  # a new classifier, for other classes
        config = replace(config, classes=None)
    model.pretrained_config = config


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
        math.prod(value.shape)
        for name, value in model.named_tensors()
        if not name.startswith("fc.") and ".running_" not in name
    )


def find_row(arch: str, pretrained: Pretrained) -> Optional[Row]:
    """The row that ``pretrained`` names for ``arch``; None when it is a path.

    Raises:
        UsageError: when there is none, or it belongs to another network.
    """
    if pretrained is True:
        row = default_row(arch)
        if row is None:
            raise UsageError(
                f"there are no published weights for {arch}; give the path of a weight file"
            )
        return row
    row = BY_NAME.get(str(pretrained))
    if row is None:
        if not Path(str(pretrained)).exists():
            rows = [row.name for row in BY_NAME.values() if row.arch == arch]
            raise UsageError(
                f"pretrained {pretrained!r}: neither a file nor a row of {arch} "
                f"({', '.join(rows) or 'which has none'})"
            )
        return None
    if row.arch != arch:
        raise UsageError(f"{row.name} are weights of {row.arch}, not of {arch}")
    return row


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
    if wanted is None or found is None or found.ndim != 2 or "fc.bias" not in tensors:
        return False
    return found.shape[1] == wanted[1] and found.shape[0] != wanted[0]


def _parse(path: Path, text: str) -> Dict[str, Any]:
    """A file's own description; whoever wrote the file may have written anything."""
    try:
        description = json.loads(text)
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict):
        raise _damaged(path, "it is no JSON object")
    arch = description.get("arch") or "none"
    if not isinstance(arch, str) or not arch.isidentifier() or len(arch) > 80:
        raise _damaged(path, "arch is no name")
    classes = description.get("classes") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise _damaged(path, "classes is no list of names")
    if len(set(classes)) < len(classes):
        raise _damaged(path, "a class comes twice")
    return description


def _preprocess(path: Path, values: Any) -> Optional[Preprocess]:
    if values is None:
        return None
    try:
        return Preprocess.from_dict(values)
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from None


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: its description is damaged, {what}; use another copy")


def _some(names: List[str]) -> str:
    first = ", ".join(names[:3])
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first
