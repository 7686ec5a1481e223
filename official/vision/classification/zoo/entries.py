"""Where in a file a network lies, whatever is wrapped around it.

A network is known by the names of its tensors. ``layer1.0.conv1.weight``, or what another project
calls it, is looked for in every dict of the file; what stands before it, such as ``module.`` or
``state_dict`` and ``model._orig_mod.``, is where the network lies. So neither the dicts nor the
prefixes need to be known in advance.

Several networks in one file are mostly the weights and their running mean. What is taken: never
the mean unless ``average`` asks for it or there is nothing else; then a network with the statistics
of its normalisations; then the first of ``_PREFERRED``; then the first in the file.
"""

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import Collection, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from ..errors import UsageError, WeightsError
from ..readers import Contents, StoredTensor
from ..readers.foreign import Foreign
from ..readers.pickle_data import shown
from .names import ANCHOR

Path = Tuple[str, ...]

MAX_DEPTH = 32  # of dicts within each other; a checkpoint of Lightning is 3 deep
MAX_DICTS = 100_000
_MAX_LISTED = 16  # of a list that may hold dicts
_MAX_TOLD = 5

# What torch and its companions put around modules, anywhere in a name.
_WRAPPERS = re.compile(
    r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_fpw_module)\."
)
_AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|average_model|shadow)([._]|$)", re.IGNORECASE)
# Networks that follow another one slowly: in self-supervised learning.
_FOLLOWERS = re.compile(r"(^|[._])(encoder_k|momentum_\w+|target_\w+|teacher)([._]|$)")
_MMCV = "ema_"
_PREFERRED = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class Entry:
    """A network that was found in a file.

    Args:
        path: the keys of the dicts around it.
        prefix: what all its names begin with.
        tensors: its own, by their names without the prefix.
        sources: the same names -> those in their dict.
        beside: names and tensors of the same dict that are of no network.
        averaged: whether it is a running mean of another one.
        swapped: the mean lies where the weights are expected, and is what its project tests.
    """

    path: Path
    prefix: str
    tensors: Dict[str, object]
    sources: Dict[str, str]
    beside: Dict[str, object]
    averaged: bool
    swapped: bool = False

    @property
    def name(self) -> str:
        """What ``--entry`` calls it."""
        return ".".join((*self.path, self.prefix.rstrip("._"))).strip(".")

    @property
    def complete(self) -> bool:
        """Whether it has the statistics of its normalisations, which gradients and momenta lack."""
        return any(re.search(r"(running_mean|moving_mean|\.rm)$", name) for name in self.tensors)


@dataclass(frozen=True)
class Found:
    """What is taken of a file, and what is not.

    Args:
        entry: the network.
        others: names of the other networks.
        beside: the other tensors, by their whole names, and which part of the file they are of.
    """

    entry: Entry
    others: Tuple[str, ...]
    beside: Mapping[str, str]

    def remark(self, used: Collection[str] = ()) -> str:
        """What to tell of the choice, in a line; empty where there was none.

        Args:
            used: names in the network's dict of what is taken besides.
        """
        told = []
        if self.others:
            rest = ", ".join(map(shown, self.others[:3])) + " and more" * (len(self.others) > 3)
            told.append(
                f"takes {shown(self.entry.name) or 'the whole'}, not {rest} "
                "(--average and --entry say otherwise)"
            )
        elif self.entry.averaged:
            told.append(f"takes {shown(self.entry.name)}, averaged weights, as there are no others")
        taken = {".".join((*self.entry.path, name)) for name in used}
        parts = Counter(part for name, part in self.beside.items() if name not in taken)
        if parts:
            left = [f"{shown(p)} ({n} tensor{'s' * (n > 1)})" for p, n in parts.items()][:_MAX_TOLD]
            more = [f"{len(parts) - _MAX_TOLD} more"] if len(parts) > _MAX_TOLD else []
            told.append(f"leaves out {', '.join([*left, *more])}")
        return "; ".join(told)

    def in_file(self, sources: Mapping[str, str]) -> Dict[str, str]:
        """The same with the file's own names."""
        return {ours: self.entry.sources[name] for ours, name in sources.items()}


def dicts(value: object) -> Iterator[Tuple[Path, Dict[object, object]]]:
    """Every dict in a file, with the keys that lead to it. A file may have cycles and any depth."""
    seen: Set[int] = set()
    waiting: List[Tuple[Path, object]] = [((), value)]
    for path, found in _growing(waiting):
        if isinstance(found, Foreign):
            found = found.items if found.items is not None else found.state
        if isinstance(found, (list, tuple)):  # [the optimizer's state]
            found = dict(enumerate(found[:_MAX_LISTED]))
        if not isinstance(found, dict) or id(found) in seen or len(seen) >= MAX_DICTS:
            continue
        seen.add(id(found))
        yield path, found
        if len(path) < MAX_DEPTH:
            waiting += [
                ((*path, str(key)), child)
                for key, child in found.items()
                if isinstance(child, (dict, Foreign))
                or (isinstance(child, (list, tuple)) and len(child) <= _MAX_LISTED)
            ]


def _growing(waiting: List[Tuple[Path, object]]) -> Iterator[Tuple[Path, object]]:
    at = 0
    while at < len(waiting):
        yield waiting[at]
        at += 1


def find(contents: Contents, average: bool, wanted: Optional[str]) -> Optional[Found]:
    """The network to take; None where nothing in the file is named as one.

    Raises:
        UsageError: when there is no such entry, or no average.
        WeightsError: when two names mean the same tensor.
    """
    entries = networks(contents.value)
    if not entries:
        return None
    chosen = _chosen(entries, average, wanted)
    others = [entry.name or "the whole" for entry in entries if entry is not chosen]
    return Found(chosen, tuple(others), dict(_beside(contents.value, chosen, entries)))


def _chosen(entries: List[Entry], average: bool, wanted: Optional[str]) -> Entry:
    if wanted is not None:
        fits = [e for e in entries if wanted in (e.name, ".".join(e.path), e.prefix.rstrip("._"))]
        if not fits:
            names = ", ".join(shown(entry.name) or "one without a name" for entry in entries)
            raise UsageError(f"--entry {wanted}: no such network in the file; there are {names}")
        entries = fits
    if average:
        means = [entry for entry in entries if entry.averaged] or [
            entry for entry in entries if _follows(entry)
        ]
        if not means:
            names = ", ".join(shown(entry.name) or "one without a name" for entry in entries)
            raise UsageError(f"--average: has no averaged weights; there are {names}")
        entries = means
    return min(entries, key=lambda entry: _rank(entry, average))  # the first of the best


def _rank(entry: Entry, average: bool) -> Tuple[bool, bool, bool, int]:
    first = entry.path[0] if entry.path else ""
    place = _PREFERRED.index(first) if first in _PREFERRED else len(_PREFERRED)
    mean = entry.averaged != (average or entry.swapped)
    return not entry.complete, mean, _follows(entry), place


def _follows(entry: Entry) -> bool:
    return any(map(_FOLLOWERS.search, (*entry.path, entry.prefix)))


def networks(value: object) -> List[Entry]:
    """Every network in a file, in the order of the file."""
    found = [
        entry
        for path, values in dicts(value)
        for entry in _in_one_dict(path, {k: v for k, v in values.items() if isinstance(k, str)})
    ]
    if not found:
        found = _in_one_dict((), _flattened(value))
    if any(entry.path == ("ema_state_dict",) for entry in found) and _of_mmengine(value):
        found = [_swapped(entry, entry.path == ("state_dict",)) for entry in found]
    if any(entry.prefix == f"{_MMCV}." for entry in found):
        found = [_swapped(entry, entry.prefix == "") for entry in found]
    return found


def _flattened(value: object) -> Dict[str, object]:
    """Every tensor of a tree of dicts by its path, as in one state dict."""
    return {
        ".".join((*path, str(key))): entry
        for path, values in dicts(value)
        for key, entry in values.items()
        if isinstance(entry, StoredTensor)
    }


def _of_mmengine(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    meta = value.get("meta")
    keys = " ".join(map(str, meta)) if isinstance(meta, dict) else ""
    return "message_hub" in value or "mmengine" in keys


def _swapped(entry: Entry, averaged: bool) -> Entry:
    """The EMAHooks of MMEngine and MMCV save the mean as the weights, and these beside it."""
    return replace(entry, averaged=averaged, swapped=True)


def _in_one_dict(path: Path, values: Dict[str, object]) -> List[Entry]:
    tensors: Dict[str, object] = {
        name: entry for name, entry in values.items() if isinstance(entry, (StoredTensor, Foreign))
    }
    bare = {name: _WRAPPERS.sub("", name) for name in tensors}
    flat = {name.replace(".", "_"): name for name in tensors}
    for name in tensors:  # MMCV's EMAHook: ema_backbone_conv1_weight beside backbone.conv1.weight
        if name.startswith(_MMCV) and name[len(_MMCV) :] in flat:
            bare[name] = f"{_MMCV}.{flat[name[len(_MMCV) :]]}"
    matches = [match for match in map(ANCHOR.match, bare.values()) if match is not None]
    prefixes = list(dict.fromkeys(match.group(1) for match in matches))
    beside = {n: tensors[n] for n, plain in bare.items() if not plain.startswith(tuple(prefixes))}
    return [_under(path, prefix, prefixes, tensors, bare, beside) for prefix in prefixes]


def _under(
    path: Path,
    prefix: str,
    prefixes: List[str],
    tensors: Dict[str, object],
    bare: Dict[str, str],
    beside: Dict[str, object],
) -> Entry:
    """What the names under ``prefix`` make; those under a longer prefix are another network's."""
    longer = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
    sources: Dict[str, str] = {}
    found: Dict[str, object] = {}
    for name, plain in bare.items():
        if not plain.startswith(prefix) or (longer and plain.startswith(longer)):
            continue
        rest = plain[len(prefix) :]
        if rest in found:
            both = f"{shown(sources[rest])} and {shown(name)}"
            raise WeightsError(f"{both} are the same tensor, {shown(rest)}")
        found[rest] = tensors[name]
        sources[rest] = name
    averaged = any(map(_AVERAGE.search, (*path, prefix)))
    return Entry(path, prefix, found, sources, beside, averaged)


def _beside(value: object, chosen: Entry, entries: List[Entry]) -> Iterator[Tuple[str, str]]:
    """The other tensors of a file, and the first part of their name or path."""
    networks = {
        ".".join((*entry.path, source)) for entry in entries for source in entry.sources.values()
    }
    for path, values in dicts(value):
        for name, entry in values.items():
            whole = ".".join((*path, str(name)))
            if not isinstance(entry, StoredTensor) or whole in networks:
                continue
            if path and path[0] != "".join(chosen.path[:1]):
                yield whole, path[0]
            else:
                yield whole, ".".join((*path[1:], str(name))).split(".")[0]
