"""Checking a data set: all images are read, classes compared, and splits searched for copies."""

import hashlib
from contextlib import closing
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Sequence, Tuple

import numpy as np

from ..errors import DataError, MissingSplit
from .dataset import ImageDataset, some
from .decoding.pixels import DAMAGED
from .folder import passed_over
from .image import remarks
from .parallel import map_groups
from .splits import is_whole, load_part, remarks_on

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
    """Look at every image of ``splits``: "train", "val" and "test", or some of them.

    Where ``train`` is asked for, images for validation may be lacking: a run holds them out. Those
    for testing always may.

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
        _open(data, split, folders, report)
    _align_classes(folders, report)
    digests: List[List[bytes]] = []
    for split, folder in folders.items():
        counts = np.bincount(folder.labels, minlength=len(folder.classes)).tolist()
        report.counts[split] = dict(zip(folder.classes, counts))
        _note_gaps(split, folder, report)
        digests.append(_read_all(split, folder, workers, progress, report))
    _find_copies(folders, digests, report)
    return report


def _open(data: str, split: str, folders: Dict[str, ImageDataset], report: Report) -> None:
    """Add the images of a split, or why there are none."""
    is_trained = "train" in folders
    try:
        folders[split] = load_part(data, split)
    except MissingSplit as error:
        if split == "val" and is_trained:
            report.warnings.append(f"{error}; training holds images out, see --val-share")
        elif split != "test" or not (is_trained or report.problems):
            report.problems.append(str(error))
    except DataError as error:
        if split == "test" and is_trained:
            report.warnings.append(f"not used: {error}")
        elif split != "test" or not report.problems:
            report.problems.append(str(error))


def _align_classes(folders: Dict[str, ImageDataset], report: Report) -> None:
    """Give all splits the classes of the first, as training does."""
    classes = next((images.classes for images in folders.values()), ())
    for split, images in list(folders.items())[1:]:
        try:
            folders[split] = images.relabel(classes)
        except DataError as error:
            if split == "test":
                report.warnings.append(f"not used: {error}")
                del folders[split]
            else:
                report.problems.append(str(error))


def _note_gaps(split: str, folder: ImageDataset, report: Report) -> None:
    empty = [name for name, count in report.counts[split].items() if not count]
    if empty:
        report.warnings.append(
            f"{folder.root}: no {split} images of {len(empty)} classes {some(empty)}"
        )
    report.warnings += [f"{folder.root}: {remark}" for remark in remarks_on(folder)]
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
    folders: Dict[str, ImageDataset], digests: Sequence[Sequence[bytes]], report: Report
) -> None:
    """Note images that are in an earlier split as well."""
    before: Dict[str, Dict[bytes, str]] = {}
    for (split, images), own in zip(folders.items(), digests):
        for other, known in before.items():
            copies = [(known[key], path) for key, path in zip(own, images.paths) if key in known]
            report.copies += copies
            if copies:
                report.warnings.append(
                    f"{len(copies)} of {len(images)} {split} images are in {other} too, such as "
                    f"{copies[0][1]}, which is {copies[0][0]}"
                )
        before[split] = {key: path for key, path in zip(own, images.paths) if key}
