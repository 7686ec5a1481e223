"""Pipes and devices among the files of a data set, as a tar archive can bring them along.

A pipe that nobody writes to would be waited for, and /dev/zero read, for ever.
"""

import contextlib
import os
import time

import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.splits import open_training
from official.vision.classification.errors import DataError
from tests.vision.classification.data.cifar_files import cifar10_files, unpack
from tests.vision.classification.data.sources import forms

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))


def lists(root):
    forms.tree(root)
    for split in ("train", "val"):
        paths = sorted((root / split).rglob("*.JPEG"))
        rows = [f"{path.relative_to(root)},{path.parent.name}" for path in paths]
        (root / f"{split}.csv").write_text("\n".join(rows))
        for path in paths:
            path.rename(root / path.name)
        rows = [f"{path.name},{path.parent.name}" for path in paths]
        (root / f"{split}.csv").write_text("\n".join(rows))
    for folder in sorted((path for path in root.rglob("*") if path.is_dir()), reverse=True):
        folder.rmdir()
    return root


def mmpretrain(root):
    forms.tree(root)
    (root / "meta").mkdir()
    for split in ("train", "val"):
        paths = sorted((root / split).rglob("*.JPEG"))
        rows = [
            f"{path.relative_to(root / split)} {forms.CLASSES.index(path.parent.name)}"
            for path in paths
        ]
        (root / "meta" / f"{split}.txt").write_text("\n".join(rows))
    return root


def cifar(root):
    return unpack(cifar10_files(), root)


def cub(root):
    forms.tree(root / "images")
    paths = sorted((root / "images").rglob("*.JPEG"))
    numbered = list(enumerate(paths, 1))
    (root / "classes.txt").write_text(
        "".join(f"{number} {name}\n" for number, name in enumerate(forms.CLASSES, 1))
    )
    (root / "images.txt").write_text(
        "".join(f"{number} {path.relative_to(root / 'images')}\n" for number, path in numbered)
    )
    (root / "image_class_labels.txt").write_text(
        "".join(f"{n} {forms.CLASSES.index(path.parent.name) + 1}\n" for n, path in numbered)
    )
    (root / "train_test_split.txt").write_text("".join(f"{n} {n % 2}\n" for n, _ in numbered))
    return root


FORMS = {
    **{
        name: forms.FORMS[name]
        for name in (
            *("tar_per_split", "zip_per_split", "official", "official_kit_unpacked"),
            *("kaggle", "webdataset", "webdataset_json", "hugging_face"),
        )
    },
    **{form.__name__: form for form in (lists, mmpretrain, cifar, cub)},
}


def look_at(root):
    """Open every split and read its first image; how many could be opened."""
    opened = 0
    for split in ("train", "val"):
        try:
            images = load_split(root, split)
        except DataError as error:
            assert "\n" not in str(error)
            continue
        opened += 1
        try:
            images.read(0)
        except DataError as error:
            assert "\n" not in str(error)
    with contextlib.suppress(DataError):
        open_training(root)
    return opened


@pytest.mark.parametrize("form", FORMS)
def test_no_pipe_and_no_device_is_read(form, tmp_path):
    root = FORMS[form](tmp_path)
    assert look_at(root) == 2
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    files = [path for path in files if path.suffix not in (".JPEG", ".png")]
    assert files
    start = time.perf_counter()
    for path in files:
        path.rename(tmp_path.parent / f"{tmp_path.name}-kept")
        os.mkfifo(path)
        look_at(root)
        path.unlink()
        path.symlink_to("/dev/zero")
        look_at(root)
        path.unlink()
        (tmp_path.parent / f"{tmp_path.name}-kept").rename(path)
    assert look_at(root) == 2
    assert time.perf_counter() - start < 5 * len(files)
