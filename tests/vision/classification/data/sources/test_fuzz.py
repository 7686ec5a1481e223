"""Archives, lists and what is kept of them, changed at random: images, or our error, soon."""

import resource
import shutil
import time
import zipfile

import numpy as np
import pyarrow
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.sources import parquet
from official.vision.classification.data.splits import open_testing, open_training
from official.vision.classification.errors import DataError, UserError
from tests import fuzz
from tests.vision.classification.data.cifar_files import cifar10_files, packed
from tests.vision.classification.data.sources import forms

pytestmark = pytest.mark.timeout(120 + 3 * fuzz.SECONDS)
MOST_MEMORY = 3 << 20  # kB more than before: one image of the most pixels takes 1.2 GB in passing
MOST_SECONDS = 60  # of a processor: an archive of CIFAR may unpack to 1 GB


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "resnet_indexes"


def _lists(root):
    rows = ["path,label,split"]
    forms.tree(root / "images")
    for path in sorted((root / "images").rglob("*.JPEG")):
        split = path.relative_to(root / "images").parts[0]
        rows.append(f"{path.relative_to(root)},{path.parent.name},{split}")
    (root / "list.csv").write_text("\n".join(rows))
    return root / "list.csv"


def _cifar(root):
    (root / "cifar-10-python.tar.gz").write_bytes(packed(cifar10_files()))
    return root / "cifar-10-python.tar.gz"


def read_all(path):
    """How many images were read, and one line about each thing that was refused."""
    count, refusals = 0, []
    for opened in (
        lambda: load_split(path, "train"),
        lambda: load_split(path, "val"),
        lambda: open_training(path).val,
        lambda: open_testing(path)[0],
    ):
        try:
            images = opened()
            assert len(images) == len(images.labels) == len(images.paths) > 0
            assert images.labels.min() >= 0 and images.labels.max() < len(images.classes)
        except UserError as error:
            refusals.append(str(error))
            continue
        for index in range(min(len(images), 40)):
            try:
                image = images.read(index)
                assert image.dtype == np.uint8 and image.shape[2] == 3
                count += 1
            except UserError as error:
                refusals.append(str(error))
    return count, refusals


def test_changed_bytes_of_archives_and_lists(tmp_path, capfd):
    made = {name: form for name, form in forms.FORMS.items() if name != "kaggle_inside"}
    made.update(lists=_lists, cifar=_cifar)
    sources = []
    for name, form in made.items():
        (tmp_path / name).mkdir()
        path = form(tmp_path / name)
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        files = [one for one in files if one.suffix not in (".JPEG", ".png")]
        sources += [(path, one, one.read_bytes()) for one in files]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = refused = 0
    slowest = 0.0
    for rng in fuzz.rounds():
        path, file, data = sources[int(rng.integers(len(sources)))]
        start = time.process_time()
        file.write_bytes(fuzz.mutated(data, rng))
        refused += bool(read_all(path)[1])
        file.write_bytes(data)
        tried += 1
        slowest = max(slowest, time.process_time() - start)
    capfd.readouterr()
    assert slowest < MOST_SECONDS and refused > 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY
    with capfd.disabled():
        fuzz.tell("archives and lists", tried, refused, slowest)


def _spoilt(kept, rng):
    """The arrays of an index, one of them with other numbers, written soundly."""
    with np.load(kept) as arrays:
        arrays = {name: arrays[name] for name in arrays.files}
    name = sorted(set(arrays) - {"stamps"})[int(rng.integers(len(arrays) - 1))]
    array = arrays[name].copy()
    how = int(rng.integers(4))
    if how == 0 and array.size:
        values = rng.integers(0, 256, array.nbytes, np.uint8)
        keep = rng.random(array.nbytes) < 0.9
        array = np.where(keep, array.view(np.uint8).reshape(-1), values).view(array.dtype)
    elif how == 1:
        array = array[: int(rng.integers(len(array) + 1))]
    elif how == 2:
        array = array.astype([np.float64, np.int32, "S3", np.int64][int(rng.integers(4))])
    elif array.dtype == np.int64:
        array[int(rng.integers(len(array)))] = rng.choice([-1, 1 << 40, (1 << 63) - 1, 1])
    with zipfile.ZipFile(kept, "w"):
        pass
    np.savez(kept.open("wb"), **{**arrays, name: array})


def test_changed_indexes(tmp_path, home, capfd):
    """What is kept of archives: it is used, or the archive is looked at anew, or we say what is."""
    paths = []
    for name in ("one_tar", "one_zip", "webdataset_json"):
        (tmp_path / name).mkdir()
        path = forms.FORMS[name](tmp_path / name)
        shutil.rmtree(home, ignore_errors=True)
        whole = read_all(path)
        paths.append((path, whole, {one.name: one.read_bytes() for one in home.iterdir()}))
    tried = refused = 0
    slowest = 0.0
    for rng in fuzz.rounds():
        path, whole, kept = paths[int(rng.integers(len(paths)))]
        shutil.rmtree(home)
        home.mkdir()
        for name, data in kept.items():
            (home / name).write_bytes(data)
        name = sorted(kept)[int(rng.integers(len(kept)))]
        start = time.process_time()
        if rng.random() < 0.5:
            (home / name).write_bytes(fuzz.mutated(kept[name], rng))
            found = read_all(path)
            assert found == whole or found[1]  # a name's letters have no checksum of ours
        else:
            _spoilt(home / name, rng)
            found = read_all(path)
        refused += bool(found[1])
        tried += 1
        slowest = max(slowest, time.process_time() - start)
    capfd.readouterr()
    assert slowest < MOST_SECONDS
    with capfd.disabled():
        fuzz.tell("indexes in the cache", tried, refused, slowest)


def test_a_row_group_with_fewer_images_than_the_file_says(monkeypatch, tmp_path):
    """Fuzzing found it: pyarrow reads such a group and hands out a shorter column."""
    monkeypatch.setattr(parquet, "_column", lambda file, group: pyarrow.array([b"x"]))
    places = np.array([[0, 0, 1]], np.int64)
    groups = parquet._Groups([tmp_path / "a.parquet"])
    labels = np.zeros(1, np.int32)
    images = parquet.ParquetImages(tmp_path, ("0",), ("a: row 1",), labels, groups, places)
    with pytest.raises(DataError, match="a: row 1: cannot be read: its images are fewer"):
        images.read(0)
