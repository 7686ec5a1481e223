"""What the names of files in an archive say: which of them are images, of which split and class."""

from dataclasses import dataclass, field
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ..dataset import split_name
from . import imagenet
from .entries import Entries

_Key = Tuple[int, str]


class Image(NamedTuple):
    """An image among the files of an archive."""

    place: int  # of the file
    name: str
    label: Optional[str]  # its class; None where its name does not say it


@dataclass
class Layout:
    """The images of an archive by split, "" where there are no splits, and what else there is."""

    images: Dict[str, List[Image]] = field(default_factory=dict)
    roots: Dict[str, Set[str]] = field(default_factory=dict)  # folders the classes are in
    unused: List[str] = field(default_factory=list)  # neither images nor their labels


def of_folders(names: Sequence[str], extensions: Tuple[str, ...]) -> Layout:
    """Images in a folder per class: ``train/<class>/<image>``, or ``<class>/<image>``.

    Both may be below other folders. An image directly below ``train`` or the like, or below none,
    has no label. A tar archive in another counts as a folder called without its suffix.
    """
    layout = Layout()
    for index, name in enumerate(names):
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or any(part[0] == "." or part == "__MACOSX" for part in parts):
            continue  # hidden: what macOS adds to every archive
        if not parts[-1].lower().endswith(extensions):
            if parts[-1] != imagenet.SOLUTION:
                layout.unused.append(name)
            continue
        folders = [part[:-4] if part.lower().endswith(".tar") else part for part in parts[:-1]]
        split, label = "", None
        if len(folders) > 1 and split_name(folders[-2]):
            label, split = folders.pop(), split_name(folders.pop())
        elif folders and split_name(folders[-1]):
            split = split_name(folders.pop())
        elif folders:
            label = folders.pop()
        layout.images.setdefault(split, []).append(Image(index, name, label))
        layout.roots.setdefault(split, set()).add("/".join(folders))
    return layout


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
