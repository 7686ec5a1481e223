"""What the names of files in an archive say: which of them are images, of which split and class."""

import os
from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..dataset import NEVER, split_name
from . import imagenet
from .entries import Entries

_Key = Tuple[int, str]


class Image(NamedTuple):
    """An image among the files of an archive."""

    place: int  # of the file
    name: str
    label: Optional[str]  # its class; None where its name does not say it


class _Way(NamedTuple):
    """The folders on the way to images."""

    split: str
    above: List[str]  # down to the split's, without it
    below: List[str]  # from there on; all of them where there is no split
    is_hidden: bool


@dataclass
class Layout:
    """The images of an archive by split, "" where there are no splits, and what else there is."""

    images: Dict[str, List[Image]] = field(default_factory=dict)
    roots: Dict[str, Set[str]] = field(default_factory=dict)  # folders the classes are in
    below: Dict[str, List[str]] = field(default_factory=dict)  # images in classes' own folders
    unused: List[str] = field(default_factory=list)  # neither images nor their labels


def of_folders(names: Sequence[str], extensions: Tuple[str, ...]) -> Layout:
    """Images in a folder per class: ``train/<class>/<image>``, or ``<class>/<image>``.

    Both may be below other folders, and images in folders of class folders, as in ``data_root`` and
    ``load_folder``. An image directly below ``train`` or the like, or below none, has no label. A
    tar archive in another counts as a folder called without its suffix.
    """
    layout = Layout()
    ways: Dict[str, _Way] = {}
    found: Dict[str, Dict[str, List[int]]] = {}  # by split and folder
    for index, name in enumerate(names):
        folder, _, file = name.rpartition("/")
        way = ways.get(folder)
        if way is None:
            way = ways[folder] = _way_through(folder)
        if way.is_hidden or file[:1] in ("", ".") or file in NEVER:
            continue  # what macOS adds to every archive
        if file.lower().endswith(extensions):
            found.setdefault(way.split, {}).setdefault(folder, []).append(index)
        elif file != imagenet.SOLUTION:
            layout.unused.append(name)
    for split, folders in found.items():
        depth = _depth_of_classes([ways[folder].below for folder in folders])
        if not split and all(len(ways[folder].below) > depth + 1 for folder in folders):
            # The outermost may be parts of a data set as well as classes: whoever loads it tells.
            depth = max(len(ways[folder].below) for folder in folders) - 1
        layout.images[split], layout.roots[split] = [], set()
        for folder, places in folders.items():
            above, below = ways[folder].above, ways[folder].below
            label = below[depth] if len(below) > depth else None
            layout.images[split] += [Image(index, names[index], label) for index in places]
            layout.roots[split].add("/".join(above + below[:depth]))
            if len(below) > depth + 1:
                layout.below.setdefault(split, []).extend(names[index] for index in places)
    return layout


def _way_through(folder: str) -> _Way:
    """A folder's way; the split's is the last called so that another follows, if there is one."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    is_hidden = any(part[0] == "." or part in NEVER for part in parts)
    parts = [part[:-4] if part.lower().endswith(".tar") else part for part in parts]
    named = [place for place, name in enumerate(parts) if split_name(name)]
    followed = [place for place in named if place + 1 < len(parts)]
    if not named:
        return _Way("", [], parts, is_hidden)
    at = (followed or named)[-1]
    return _Way(split_name(parts[at]), parts[:at], parts[at + 1 :], is_hidden)


def _depth_of_classes(ways: Sequence[List[str]]) -> int:
    """How many folders are above those of the classes: the ones that hold all images."""
    return max(0, min(len(os.path.commonprefix(ways)), min(map(len, ways)) - 1))


def of_samples(entries: Entries, extensions: Tuple[str, ...]) -> Layout:
    """WebDataset's form: files of one sample share all but what follows the first dot of the name.

    The label of an image is in a file ``.cls``, else in one ``.json``, beside it. See "The
    WebDataset Format" of github.com/webdataset/webdataset.
    """
    layout = Layout()
    labels: Dict[Tuple[_Key, str], str] = {}
    images: List[Tuple[_Key, Image]] = []
    for index, (name, shard) in enumerate(zip(entries.names, entries.shard.tolist())):
        folder, slash, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        key = (shard, folder + slash + stem)  # shards may count their samples from 0, each
        if entries.texts[index]:
            labels[key, ending.lower()] = entries.texts[index]
        elif f".{ending.lower()}".endswith(extensions):
            images.append((key, Image(index, name, None)))
        elif ending.lower() not in ("cls", "json", "txt"):
            layout.unused.append(name)
    layout.images[""] = [
        image._replace(label=labels.get((key, "cls"), labels.get((key, "json"))))
        for key, image in images
    ]
    layout.roots[""] = {""}
    return layout
