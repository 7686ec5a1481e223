"""Where the images that a list names are: beside it or in a folder there.

Kaggle's competitions have ``train.csv`` beside ``train_images/``, and leave suffixes out of lists.
"""

from pathlib import Path
from typing import Dict, NamedTuple, Sequence

from ..dataset import NEVER, split_name
from ..image import EXTENSIONS

_LOOK = 20  # names that are looked for
_ORDER = ("", "train", "val", "test")  # of folders that are not called as the list is


class Place(NamedTuple):
    """A folder, and its files by their names without suffix where the list leaves that out."""

    folder: Path
    files: Dict[str, str]
    is_sure: bool  # whether any of the images is there

    def path_of(self, name: str) -> str:
        return name if name[0] == "/" else f"{self.folder}/{self.files.get(name, name)}"


def find_place(beside: Path, split: str, names: Sequence[str]) -> Place:
    """The folder below which images are, by some of their ``names``.

    Args:
        beside: the list's own folder, which it is where none of the images is found.
        split: what the images are of, or "".
    """
    some = names[:: max(1, len(names) // _LOOK)]
    folders = [beside, *_folders(beside, split)]
    for folder in folders:
        if any(_is_there(folder / name) for name in some):
            return Place(folder, {}, True)
    for folder in folders:
        files = _by_stem(folder)
        if any(name in files for name in some):
            return Place(folder, files, True)
    return Place(beside, {}, False)


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that is closed
        return False


def _folders(beside: Path, split: str) -> Sequence[Path]:
    """Folders there, those of the split first, and at last those of other splits."""
    order = [split, *(name for name in _ORDER if name != split)]
    found = [path for path in sorted(beside.iterdir()) if path.is_dir() and path.name not in NEVER]
    return sorted(found, key=lambda path: order.index(split_name(path.name)))


def _by_stem(folder: Path) -> Dict[str, str]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return {}
    return {Path(name).stem: name for name in names if name.lower().endswith(EXTENSIONS)}
