"""The tensors of a weight file by our names, and what the file says about them."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from ..errors import UsageError, WeightsError
from ..ops.quantize import LayerRange, LayerRanges
from ..preprocess import Preprocess
from ..readers import Contents, Fault, StoredTensor, open_weights, state_dict
from ..readers.foreign import Foreign
from ..readers.pickle_data import shown
from .beside import beside
from .entries import dicts, find
from .names import in_our_order, in_our_shapes, split, translate, with_our_norms
from .said import classes_of
from .schemes import SCHEMES

MODEL_PREFIX = "model."  # of a network's tensors in a checkpoint, beside the optimizer's
AVERAGE_PREFIX = "average."  # of their running means, where the recipe has ``ema``
CLASSIFIER = ("fc.weight", "fc.bias")
_TREES = ("hdf5", "keras", "msgpack")
_PARTS = ("weight", "bias", "running_mean", "running_var")
_PLAIN = "Save plain tensors: dequantize() and to_dense() make them"
_OPTIMIZER = re.compile(r"(.*\.)?optimizer")
DESCRIPTION = "resnet"  # the metadata entry of our own files: a JSON object


@dataclass(frozen=True)
class Weights:
    """A network's tensors by our names, and what their file says about them.

    Args:
        format: of the file; see ``readers``.
        scheme: whose names the file has; see ``names``. "ours" for the project's own files.
        sources: our name -> the file's; dropped: the file's names of what is no weight.
        remark: which of several networks in the file it is and what was left out, if anything.
        held_out: which training images were not trained on; see ``data/splits.py``.
        int8_ranges: what int8 is calibrated by.
        head: names of what the file has in place of a classifier.
        licence: of the weights, as one of our files states it; empty for other files.
        stride_first: its network has its strides on the first 1x1 convolutions.
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
    remark: str = ""
    held_out: Optional[Dict[str, Any]] = None
    int8_ranges: Optional[LayerRanges] = None
    head: str = ""
    licence: str = ""
    stride_first: bool = False

    @property
    def num_classes(self) -> Optional[int]:
        """Rows of the classifier."""
        head = self.tensors.get("fc.weight")
        return None if head is None or head.ndim not in (2, 4) else len(head)

    def with_classes(self, rows: Sequence[int]) -> "Weights":
        """The same with the classifier's ``rows`` in this order."""
        head = {key: self.tensors[key][list(rows)] for key in CLASSIFIER if key in self.tensors}
        tensors = {**self.tensors, **head}
        return replace(self, tensors=tensors, classes=None, int8_ranges=None)

    def without_classifier(self) -> "Weights":
        """The same without the tensors of the classifier."""
        body = {key: value for key, value in self.tensors.items() if key not in CLASSIFIER}
        return replace(self, tensors=body, classes=None, int8_ranges=None)


def load_weights(
    path: Union[str, Path], average: bool = False, entry: Optional[str] = None
) -> Weights:
    """Read a weight file of any kind this project knows, or one of its own checkpoints.

    Args:
        average: the running means of a checkpoint's weights in place of the weights.
        entry: which network of the file, by where it lies, such as ``state_dict_ema``. Without
            it, ``entries`` says which is taken.

    Raises:
        UsageError: when the file has no such entry.
        WeightsError: naming the file and what is wrong with it.
    """
    path = Path(path)
    contents = open_weights(path)
    if DESCRIPTION not in contents.metadata:
        return _foreign(path, contents, average, entry)
    tensors = contents.arrays(state_dict(contents))
    averages = strip_prefix(AVERAGE_PREFIX, tensors)
    if average and not averages:
        raise WeightsError(
            f"{path}: has no averaged weights; the checkpoints of a recipe with ema have them"
        )
    description = _parse(path, contents.metadata[DESCRIPTION])
    taken = averages if average else strip_prefix(MODEL_PREFIX, tensors) or tensors
    if "names" in description:  # of another project, for which we have written it
        translation = translate(taken)
        taken = in_our_shapes(translation.scheme, translation.tensors)
    weights = Weights(
        path,
        taken,
        arch=description.get("arch"),
        classes=tuple(description.get("classes") or ()) or None,
        preprocess=_preprocess(path, description.get("preprocess")),
        format=contents.format,
        held_out=description.get("held_out"),
        int8_ranges=_int8_ranges(path, description.get("int8_ranges")),
        licence=description.get("licence") or "",
    )
    if weights.classes and weights.num_classes not in (None, len(weights.classes)):
        raise _damaged(path, f"{len(weights.classes)} names for {weights.num_classes} classes")
    return weights


def _foreign(path: Path, contents: Contents, average: bool, entry: Optional[str]) -> Weights:
    """The weights in a file of another project, or in one that has only tensors."""
    try:
        found = find(contents, average, entry)
        if found is None and contents.format in _TREES:
            raise _unknown_tree(contents)
        stored: Mapping[str, Any] = found.entry.tensors if found else state_dict(contents)
        translation = translate(stored)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except WeightsError as error:
        told = str(error)
        raise WeightsError(told if told.startswith(f"{path}: ") else f"{path}: {told}") from None
    if found is None and (average or entry):
        flag = "--average" if average else f"--entry {entry}"
        raise UsageError(f"{path}: {flag}: nothing in it is named as the tensors of a network")
    sources = found.in_file(translation.sources) if found else translation.sources
    named = in_our_order(translation.scheme, _stored(contents, translation.tensors))
    parts = _parted(named, sources) if found else _Parts(named, sources)
    if found and not {*CLASSIFIER} & {*parts.tensors}:
        neighbours = _stored(contents, found.entry.beside)
        parts = _with_neighbour(parts, in_our_order(translation.scheme, neighbours))
    tensors = contents.arrays(parts.tensors)
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors. Check that it is the right file.")
    tensors = with_our_norms(translation.scheme, in_our_shapes(translation.scheme, tensors))
    sources = {ours: source for ours, source in parts.sources.items() if ours in tensors}
    choice = found.remark([*sources.values()]) if found else ""
    weights = Weights(
        path,
        tensors,
        format=contents.format,
        scheme=translation.scheme,
        sources=sources,
        dropped=translation.dropped,
        remark="; ".join(filter(None, [choice, parts.remark])),
        head=parts.head,
    )
    around = beside(path, weights.num_classes)
    return replace(
        weights,
        classes=classes_of(contents, weights.num_classes) or around.classes,
        preprocess=around.preprocess,
        stride_first=SCHEMES[translation.scheme].stride_first or around.stride_first,
        remark="; ".join(filter(None, [weights.remark, around.remark])),
    )


def _unknown_tree(contents: Contents) -> WeightsError:
    """For files whose formats say nothing of networks, and which hold another kind of it."""
    names = [
        ".".join((*path, str(key)))
        for path, values in dicts(contents.value)
        for key in values
        if isinstance(values[key], StoredTensor)
    ]
    found = f"its tensors are called {_some(names)}" if names else "it holds no tensors"
    return WeightsError(
        f"holds no ResNet that is known here ({found}); of Keras those of keras.applications of "
        "version 1 are read, of flax those of transformers"
    )


class _Parts(NamedTuple):
    """What is used of a network's dict: tensors and their names in the file by ours."""

    tensors: Dict[str, StoredTensor]
    sources: Dict[str, str]
    remark: str = ""
    head: str = ""


def _parted(tensors: Dict[str, StoredTensor], sources: Dict[str, str]) -> _Parts:
    """Name the classifier as ours, and leave out what is no part of the network.

    With a classifier, whatever else there is may belong to the network and stays, to be refused.
    """
    parts = split({name: stored.shape for name, stored in tensors.items()})
    ours = {name: f"fc.{name.rpartition('.')[2]}" for name in parts.classifier}
    out = {*parts.unused, *(() if parts.classifier else parts.others)}
    head = "" if parts.classifier else _some(parts.others)
    told = [f"leaves out its head ({head})"] if head else []
    told += [f"leaves out {_some(parts.unused)}"] if parts.unused else []
    kept = {ours.get(name, name): stored for name, stored in tensors.items() if name not in out}
    named = {ours.get(name, name): source for name, source in sources.items() if name not in out}
    return _Parts(kept, {name: named[name] for name in kept}, "; ".join(told), head)


def _with_neighbour(parts: _Parts, beside: Dict[str, StoredTensor]) -> _Parts:
    """The same with the classifier that stands beside a backbone in its dict, if one does."""
    body = {name: stored.shape for name, stored in parts.tensors.items()}
    near = {_as_in_torch(name): name for name in beside if not _OPTIMIZER.match(name)}
    found = split({**body, **{name: beside[near[name]].shape for name in near}}).classifier
    if parts.head or not found:
        return parts
    ours = {f"fc.{name.rpartition('.')[2]}": near[name] for name in found}
    kept = {**parts.tensors, **{our: beside[name] for our, name in ours.items()}}
    return parts._replace(
        tensors=kept,
        sources={**parts.sources, **ours},
        remark="; ".join(
            filter(None, [parts.remark, f"takes {_some([*ours.values()])} as its classifier"])
        ),
    )


def _as_in_torch(name: str) -> str:
    """Keras's name of a layer's weight or bias, and of a variable by its number."""
    name = re.sub(r"\.(kernel(:0)?|0)$", ".weight", name)
    return re.sub(r"\.(bias:0|1)$", ".bias", name)


def _some(names: Sequence[str]) -> str:
    first = ", ".join(map(shown, names[:3]))
    return f"{first} and {len(names) - 3} more" if len(names) > 3 else first


def _stored(contents: Contents, found: Mapping[str, Any]) -> Dict[str, StoredTensor]:
    """``found`` without what is beside a state dict's tensors, if all of these can be read."""
    faults = {n: value for n, value in found.items() if isinstance(value, Foreign)}
    for name, value in faults.items():
        if value.damaged or name.rpartition(".")[2] in _PARTS:
            special = value.fault.startswith("is ")
            fault = f"its tensor {shown(name)}{' ' if special else ': '}{value.fault}"
            raise contents.refuse(Fault(fault, not value.damaged, _PLAIN if special else ""))
    return {name: value for name, value in found.items() if name not in faults}


def strip_prefix(prefix: str, tensors: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The tensors whose names start with ``prefix``, by the rest of their names."""
    return {
        name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)
    }


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
    licence = description.get("licence") or ""
    if not isinstance(licence, str) or not licence.isprintable() or len(licence) > 80:
        raise _damaged(path, "licence is no name of one")
    return description


def _preprocess(path: Path, values: Any) -> Optional[Preprocess]:
    if values is None:
        return None
    try:
        return Preprocess.from_dict(values)
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from None


def _int8_ranges(path: Path, rows: Any) -> Optional[LayerRanges]:
    if rows is None:
        return None
    try:
        found = tuple(LayerRange(*row) for row in rows)
        right = all(isinstance(each.channels, int) and each.is_bounded() for each in found)
    except TypeError:
        right = False
    if not right:
        raise _damaged(path, "int8_ranges is no list of channels and numbers about zero")
    return found


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: its description is damaged, {what}; use another copy")
