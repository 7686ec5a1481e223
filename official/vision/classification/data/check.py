"""Checking a data set: all images are read, classes compared, and splits searched for copies."""

import hashlib
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..errors import DataError
from .dataset import ImageDataset, some
from .decoding.pixels import DAMAGED
from .folder import load_split, passed_over
from .image import remarks
from .parallel import map_groups
from .splits import is_whole

_CHUNK = 32  # images that a thread takes at a time

Progress = Callable[[str, int, int], None]


@dataclass
class Report:
    """What was found in a data set.

    Args:
        counts: images by split and class.
        unreadable: what is wrong with images, by split; each begins with the image's path.
        remarks: what was assumed of images that can be read, or is wrong with them, by split;
            likewise.
        damaged: how many of these are damaged, by split.
        problems: what else would stop a training run or a test.
        warnings: what may be intended.
        copies: paths of equal images in two splits.
        skip_broken: whether images that cannot be read may be left out.
    """

    counts: Dict[str, Dict[str, int]] = field(default_factory=dict)
    unreadable: Dict[str, List[str]] = field(default_factory=dict)
    remarks: Dict[str, List[str]] = field(default_factory=dict)
    damaged: Dict[str, int] = field(default_factory=dict)
    problems: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)
    copies: List[Tuple[str, str]] = field(default_factory=list)
    skip_broken: bool = False

    @property
    def is_sound(self) -> bool:
        if self.problems:
            return False
        return self.skip_broken or not any(self.unreadable.values())


def check_data(
    data: str,
    splits: Sequence[str],
    workers: int,
    progress: Progress,
    skip_broken: bool = False,
) -> Report:
    """Look at every image of ``splits``, which are "train" and "val" or one of them.

    Args:
        workers: threads that read images.
        progress: called with a split, how many images of it have been read, and of how many.
        skip_broken: whether images that cannot be read may be left out.
    """
    report = Report(skip_broken=skip_broken)
    folders: Dict[str, ImageDataset] = {}
    if is_whole(data):
        report.warnings.append(f"{data}: has no splits; training holds images out, see --val-share")
        splits = ["train"]
    for split in splits:
        try:
            folders[split] = load_split(data, split)
        except DataError as error:
            report.problems.append(str(error))
    if len(folders) == 2:
        _align_classes(folders, report)
    digests: List[List[bytes]] = []
    for split, folder in folders.items():
        counts = np.bincount(folder.labels, minlength=len(folder.classes)).tolist()
        report.counts[split] = dict(zip(folder.classes, counts))
        _note_gaps(split, folder, report)
        digests.append(_read_all(split, folder, workers, progress, report))
    if len(digests) == 2:
        _find_copies(list(folders.values()), digests, report)
    return report


def _align_classes(folders: Dict[str, ImageDataset], report: Report) -> None:
    """Give both splits the classes of the first, as training does."""
    train, val = folders.values()
    try:
        folders["val"] = val.relabel(train.classes)
    except DataError as error:
        report.problems.append(str(error))


def _note_gaps(split: str, folder: ImageDataset, report: Report) -> None:
    empty = [name for name, count in report.counts[split].items() if not count]
    if empty:
        report.warnings.append(
            f"{folder.root}: no {split} images of {len(empty)} classes {some(empty)}"
        )
    extra = passed_over(folder)
    if extra:
        report.warnings.append(
            f"{folder.root}: {len(extra)} files are not named as images, and not used {some(extra)}"
        )


def _read_all(
    split: str, folder: ImageDataset, workers: int, progress: Progress, report: Report
) -> List[bytes]:
    """Note what cannot be read; return a digest of each image's content, or nothing for those."""
    total = len(folder)
    unreadable = report.unreadable.setdefault(split, [])
    noted = report.remarks.setdefault(split, [])
    digests: List[bytes] = []
    chunks = [range(start, min(start + _CHUNK, total)) for start in range(0, total, _CHUNK)]
    examined = map_groups(
        lambda chunk: [_examine(folder, index) for index in chunk],
        ([(chunk,)] for chunk in chunks),
        workers,
        ahead=4 * workers,
    )
    with closing(examined):  # an interrupt does not wait for every image
        for chunk, (found,) in zip(chunks, examined):
            digests += [digest for digest, _, _ in found]
            unreadable += [reason for _, reason, _ in found if reason]
            noted += [remark for _, _, texts in found for remark in texts]
            progress(split, chunk.stop, total)
    if len(unreadable) == total:
        report.problems.append(f"{folder.root}: none of the {total} {split} images can be read")
    report.damaged[split] = sum(f": {DAMAGED}" in remark for remark in noted)
    return digests


def _examine(folder: ImageDataset, index: int) -> Tuple[bytes, str, List[str]]:
    """A digest of the image's content, or why it cannot be read; and what is remarked on it."""
    try:
        with remarks() as found:
            folder.read(index)
        return hashlib.blake2b(folder.content(index), digest_size=16).digest(), "", found
    except DataError as error:
        return b"", str(error), []


def _find_copies(
    folders: Sequence[ImageDataset], digests: Sequence[Sequence[bytes]], report: Report
) -> None:
    train, val = folders
    known = {digest: path for digest, path in zip(digests[0], train.paths) if digest}
    report.copies = [
        (known[digest], path) for digest, path in zip(digests[1], val.paths) if digest in known
    ]
    if report.copies:
        one, other = report.copies[0]
        report.warnings.append(
            f"{len(report.copies)} of {len(val)} val images are in train too, such as {other}, "
            f"which is {one}"
        )
