"""Which images of a data set are trained on, validated on and tested on.

A data set of people's own often has no images for validation. Then a share of every class is held
out: which images, is a function of the seed and of their names alone. The run keeps, for every
class, up to where in that order images are held out, so that what was trained on is never tested
on later, whatever images were added or taken away in between.
"""

import contextlib
import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from ..errors import DataError, MissingSplit, UsageError
from ..text import printable
from .dataset import ImageDataset, Subset, some, split_name, subset
from .folder import (
    below_classes,
    beside_classes,
    data_root,
    is_flat,
    load_split,
    split_folders,
    unused_folders,
)
from .sources import archives, csv_list, imagenet

logger = logging.getLogger(__name__)

VAL_SHARE = 0.2  # of the images of a data set without any for validation


@dataclass(frozen=True)
class HeldOut:
    """The rule by which images are held out of training.

    Args:
        share: of every class.
        seed: what their order is drawn from.
        limits: by class, the largest of the ``keys`` that is held out; -1 for none.
    """

    share: float
    seed: int
    limits: Dict[str, int]

    @classmethod
    def choose(cls, images: ImageDataset, share: float, seed: int) -> "HeldOut":
        """Hold out ``share`` of every class, but at least one image and never all of them.

        A class with a single image is trained on.

        Raises:
            DataError: when no class has an image to spare.
        """
        order = keys(images, seed)
        limits = {}
        for label, name in enumerate(images.classes):
            own = np.sort(order[images.labels == label])
            count = _count_held_out(len(own), share)
            limits[name] = int(own[count - 1]) if count > 0 else -1
        if not any(limit >= 0 for limit in limits.values()):
            raise DataError(
                f"{images.root}: no class has two images, so none can be held out for validation"
            )
        return cls(share, seed, limits)

    def split(self, images: ImageDataset) -> Tuple[Subset, Subset]:
        """The images to train on, and those held out."""
        limits = np.array([self.limits.get(name, -1) for name in images.classes])
        is_held_out = keys(images, self.seed) <= limits[images.labels]
        return subset(images, np.flatnonzero(~is_held_out)), subset(
            images, np.flatnonzero(is_held_out)
        )

    def is_of(self, images: ImageDataset) -> bool:
        """Whether these are images that the rule was made for: the last one held out is there."""
        limits = np.array([self.limits.get(name, -1) for name in images.classes])
        return bool((keys(images, self.seed) == limits[images.labels]).any())

    def to_dict(self) -> Dict[str, Any]:
        return {"share": self.share, "seed": self.seed, "limits": self.limits}

    @classmethod
    def from_dict(cls, values: Any) -> "HeldOut":
        """What ``to_dict`` returned.

        Raises:
            ValueError: when it makes no sense.
        """
        if not isinstance(values, dict) or values.keys() != {"share", "seed", "limits"}:
            raise ValueError("held_out: expected share, seed and limits")
        share, seed, limits = values["share"], values["seed"], values["limits"]
        if not (isinstance(share, float) and 0 < share < 1 and type(seed) is int and seed >= 0):
            raise ValueError("held_out: its share or seed makes no sense")
        if not isinstance(limits, dict) or not all(
            type(limit) is int and -1 <= limit < 1 << 48 for limit in limits.values()
        ):
            raise ValueError("held_out: its limits make no sense")
        return cls(share, seed, limits)


def count_trained_on(root: Union[str, Path], images: ImageDataset, share: Optional[float]) -> int:
    """How many of ``images``, those of ``root`` for training, ``open_training`` trains on."""
    if share is None and not is_whole(root):
        with contextlib.suppress(DataError):
            load_part(root, "val")
            return len(images)
    counts = np.bincount(images.labels, minlength=len(images.classes)).tolist()
    return sum(count - max(0, _count_held_out(count, share or VAL_SHARE)) for count in counts)


def _count_held_out(count: int, share: float) -> int:
    return min(max(1, round(share * count)), count - 1)


def keys(images: ImageDataset, seed: int) -> np.ndarray:
    """``(N,)`` int64: 48 bits for each image, drawn from the seed and the image's name.

    The name is the path below the data set's root, so that the folder may be moved.
    """
    base = images.root if images.root.is_dir() else images.root.parent
    prefix = f"{base}/"
    found = []
    for path in images.paths:
        name = path[len(prefix) :] if path.startswith(prefix) else path
        digest = hashlib.sha256(f"{seed} ".encode() + os.fsencode(name)).digest()
        found.append(int.from_bytes(digest[:6], "big"))
    return np.array(found, np.int64)


@dataclass(frozen=True)
class TrainingData:
    """The images of a run, all with the classes of ``train``.

    Args:
        test: images that decide nothing; None where there are none.
        held_out: how ``val`` was taken from the training images; None where it was not.
        lines: what to say of it.
    """

    train: ImageDataset
    val: ImageDataset
    test: Optional[ImageDataset]
    held_out: Optional[HeldOut]
    lines: List[str]


def open_training(
    root: Union[str, Path], share: Optional[float] = None, seed: int = 0
) -> TrainingData:
    """The images that a run is trained and validated on.

    Where a folder or a list has no images for validation, ``share`` of every class of the training
    images are held out; images for testing decide nothing then. CIFAR and CUB-200-2011 are split as
    published, and their test images serve for validation unless ``share`` is given.

    Args:
        share: of the training images to hold out; None for ``VAL_SHARE`` where it is needed.
        seed: of the run.

    Raises:
        DataError: as ``load_split``.
        UsageError: for a ``share`` where there are images for validation.
    """
    root = data_root(root)
    whole = is_whole(root)
    if whole and share is None:
        _refuse_part(root)
    train = load_split(root, "train")
    if len(train.classes) < 2:
        raise DataError(
            f"{train.root}: has one class {some(train.classes)}; a classifier needs two or more"
        )
    val = None if whole else _validation(root, share)
    held_out = None
    if val is None:
        held_out = HeldOut.choose(train, share or VAL_SHARE, seed)
        train, val = held_out.split(train)
    val = val.relabel(train.classes)
    test, no_test = (None, "") if whole else _for_testing(root, train)
    lines = _lines(root, train, val, test, held_out, no_test)
    return TrainingData(train, val, test, held_out, lines)


def parts_of(root: Union[str, Path]) -> Dict[str, ImageDataset]:
    """All that a data set has of ``train``, ``val`` and ``test``, with the classes of the first.

    What says nothing of splits is all for training, unless its own name tells. CIFAR and
    CUB-200-2011 are split as published, where the test images are those to validate on. Images for
    testing whose classes are nowhere, as ImageNet's, are left out, with a warning.

    Raises:
        DataError: as ``load_split``.
    """
    root = data_root(root)
    if is_whole(root):
        return {_called(root) or "train": load_split(root, "train")}
    found: Dict[str, ImageDataset] = {}
    for split in ("train", "val"):
        with contextlib.suppress(MissingSplit):
            found[split] = load_part(root, split)
    first = next(iter(found.values()), None) or load_part(root, "train")  # which tells why
    found = {split: images.relabel(first.classes) for split, images in found.items()}
    test, no_test = _for_testing(root, first)
    if no_test:
        logger.warning("not used: %s", no_test)
    return {**found, "test": test} if test is not None else found


def load_part(root: Union[str, Path], split: str) -> ImageDataset:
    """As ``load_split``, but images are of one split only: "val" is not what "test" is.

    Where they are split as published, those for testing are "val", and there is no "test".

    Raises:
        DataError: as ``load_split``.
    """
    root = data_root(root)
    if _is_own(root):
        return load_split(root, "only val" if split == "val" else split)
    if split == "test":
        raise MissingSplit(f"{root}: its test images are those for validation")
    return load_split(root, split)


def is_whole(root: Union[str, Path]) -> bool:
    """Whether the data set has no splits: folders of classes, an archive, or a list of images."""
    root = data_root(root)
    return is_flat(root) or csv_list.has_no_splits(root) or archives.has_no_splits(root)


def _is_own(root: Path) -> bool:
    """Whether it is a folder, an archive or a list, whose splits are the user's."""
    if root.is_file():
        return csv_list.is_list(root) or archives.is_archive(root)
    kinds = (imagenet, csv_list, archives)
    return bool(split_folders(root)) or any(kind.matches(root) for kind in kinds)


def _validation(root: Path, share: Optional[float]) -> Optional[ImageDataset]:
    """The images for validation; None where some are to be held out."""
    if not _is_own(root):
        return load_split(root, "val") if share is None else None
    try:
        val = load_split(root, "only val")
    except MissingSplit:
        return None
    if share is not None:
        raise UsageError(
            f"--val-share {share:g}: {root} has images for validation, {val.root}; leave the flag "
            "out, or move them away"
        )
    return val


def _refuse_part(root: Path) -> None:
    """``--data photos/train`` would pass over ``photos/val``, ``train.tar`` over ``val.tar``."""
    root = root.absolute()
    in_files = archives.splits_in if root.is_file() else split_folders
    own, others = _called(root), sorted(set(in_files(root.parent)) - {_called(root)})
    if own and others:
        raise DataError(
            f"{root}: is one part of a data set that has {others[0]}, too; did you mean "
            f"--data {root.parent}? --val-share 0.2 holds images out of this part alone"
        )


def _called(root: Path) -> str:
    """The split that the name of a folder or an archive tells."""
    return split_name(root.name) if root.is_dir() else archives.split_of_file(root.name)


def _for_testing(root: Path, train: ImageDataset) -> Tuple[Optional[ImageDataset], str]:
    """The images that decide nothing; or why those that are there cannot be used."""
    try:
        return load_part(root, "test").relabel(train.classes), ""
    except MissingSplit:
        return None, ""
    except DataError as error:  # without their classes, as ImageNet's
        return None, str(error)


def _lines(
    root: Path,
    train: ImageDataset,
    val: ImageDataset,
    test: Optional[ImageDataset],
    held_out: Optional[HeldOut],
    no_test: str,
) -> List[str]:
    lines = [
        f"data: {len(train)} training images in {train.root}, {len(val)} validation images in "
        f"{val.root}"
    ]
    if held_out is not None:
        lines = [
            f"data: {len(train)} training images in {train.root}, {len(val)} validation images "
            f"held out of them, {held_out.share:g} of each class (--val-share, by --seed "
            f"{held_out.seed})"
        ]
        single = [name for name, limit in held_out.limits.items() if limit < 0]
        if single:
            lines.append(
                f"data: {len(single)} classes have one image, which is trained on {some(single)}"
            )
    elif not _is_own(root):
        lines.append(
            "data: where there are no images for validation, those for testing decide which epoch "
            "is best; --val-share holds out training images instead"
        )
    if test is not None:
        lines.append(f"data: {len(test)} test images in {test.root}, which decide nothing")
    of_list = [csv_list.columns_read(train.root), csv_list.place_read(train.root)]
    parts = [train, val] + ([test] if test is not None else [])
    unused = unused_folders(root, [part.root for part in parts])
    names = [printable(name) for name in unused if not (no_test and split_name(name) == "test")]
    lines += [f"data: not used: {text}" for text in (", ".join(names), no_test) if text]
    lines += [f"data: {remark}" for remark in remarks_on(*parts)]
    return lines + [line for line in of_list if line]


def remarks_on(*parts: ImageDataset) -> List[str]:
    """What was assumed of images that are in no class folder, or in one's own folders."""
    whole = {id(each): each for each in (getattr(part, "whole", part) for part in parts)}.values()
    deeper = [path for each in whole for path in below_classes(each)]
    beside = sorted({path for each in whole for path in beside_classes(each)})
    remarks = []
    if deeper:
        remarks.append(
            f"{len(deeper)} images in folders of class folders are taken for images of these "
            f"classes {some([printable(path) for path in deeper])}"
        )
    if beside:
        remarks.append(
            f"not used: {len(beside)} images that are beside the class folders "
            f"{some([printable(path) for path in beside])}"
        )
    return remarks


def open_testing(
    root: Union[str, Path], split: Optional[str] = None, held_out: Optional[HeldOut] = None
) -> Tuple[ImageDataset, str]:
    """The images that a network is tested on, and a line that says which these are.

    Args:
        split: "train", "val" or "test"; None for "val", or what there is instead.
        held_out: which images the network's run has held out, if it has.

    Raises:
        DataError: as ``load_split``.
    """
    root = data_root(root)
    if held_out is not None and split != "test":
        part = _part_of_run(root, split, held_out)
        if part is not None:
            return part
    if is_whole(root):
        if split not in (None, _called(root)):
            raise MissingSplit(
                f"{root}: has no splits, and these weights do not say that images of it were held "
                f"out, so there is no --split {split}; without the flag all of them are tested"
            )
        images = load_split(root, "train")
        line = f"testing on all {len(images)} images in {root}, which has no splits"
        return images, "; ".join([line, *remarks_on(images)])
    name = "only val" if split == "val" and _is_own(root) else split or "val"
    images = load_split(root, name)
    which = "" if split_name(images.root.stem) else f" ({split or 'val, else test'})"
    line = f"testing on {len(images)} images in {images.root}{which}"
    return images, "; ".join([line, *remarks_on(images)])


def _part_of_run(
    root: Path, split: Optional[str], held_out: HeldOut
) -> Optional[Tuple[ImageDataset, str]]:
    """What a run trained on, or held out of it; None where other images are meant."""
    published = not _is_own(root) and not is_whole(root)
    if not is_whole(root) and split != "train" and not (published and split == "val"):
        try:
            load_split(root, "only val" if split else "val")
            return None
        except MissingSplit:
            pass
    try:
        images = load_split(root, "train")
    except MissingSplit:
        return None
    if not held_out.is_of(images):
        return None
    train, val = held_out.split(images)
    part, told = (train, "trained on") if split == "train" else (val, "held out of training")
    return part, (
        f"testing on {len(part)} of {len(images)} images in {images.root}, those that the run of "
        f"these weights {told}"
    )
