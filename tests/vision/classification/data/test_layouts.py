"""Folders and archives as people have them: how deep, and how the parts are called."""

import shutil

import pytest

from official.vision.classification.data.check import check_data
from official.vision.classification.data.dataset import split_name
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.splits import is_whole, open_testing, open_training
from official.vision.classification.errors import DataError, MissingSplit
from tests.vision.classification.data.sources.forms import png

# What train/cat is called, and what val/cat is; Kaggle's archives unpack to a folder in a folder.
SPELLINGS = [
    ("train/cat", "val/cat"),
    ("Train/cat", "Validate/cat"),
    ("training_set/cat", "dev_set/cat"),
    ("training_set/training_set/cat", "validation_set/validation_set/cat"),
    ("seg_train/seg_train/cat", "seg_val/seg_val/cat"),
    ("train_images/cat", "val-images/cat"),
    ("trainset/cat", "evalset/cat"),
    ("train/images/cat", "valid/images/cat"),
    ("data/train/cat", "data/eval/cat"),
    ("archive/Data Set/images/TRAIN/cat", "archive/Data Set/images/VAL/cat"),
    ("train/train/cat", "val/val/cat"),
    ("images train/cat", "images test/cat"),
]


def fill(root, files):
    """Files of a small image each, no two alike."""
    for number, name in enumerate(files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png("train", number % 4) + bytes([number]))
    return root


def photos(place, count=5, classes=("cat", "dog")):
    """The names of a split's images, of which ``place`` is the first class."""
    above = place[: -len("cat")]
    return [f"{above}{name}/{number}.png" for name in classes for number in range(count)]


def zipped(root):
    return shutil.make_archive(str(root), "zip", root)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("pack", [str, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize(("train", "val"), SPELLINGS)
def test_the_parts_are_found_however_they_are_called(train, val, pack, tmp_path):
    root = fill(tmp_path / "set", [*photos(train), *photos(val, 3), "set.txt", "LICENSE.md"])
    data = open_training(pack(root))
    if "test" in val:
        assert len(data.test) == 6 and data.held_out is not None
        assert len(data.train) + len(data.val) == 10
    else:
        assert (len(data.train), len(data.val)) == (10, 6) and data.held_out is None
    assert data.train.classes == data.val.classes == ("cat", "dog")
    assert not any("not used" in line or "taken for" in line for line in data.lines), data.lines
    tested, _ = open_testing(pack(root))
    assert len(tested) == 6 and tested.classes == ("cat", "dog")


@pytest.mark.parametrize("pack", [str, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("above", ["", "photos/", "my photos/all of them/", "a/b/c/d/"])
def test_classes_alone_are_held_out_of_and_tested_again(above, pack, tmp_path):
    root = fill(tmp_path / "set", photos(f"{above}cat", 10))
    path = pack(root)
    data = open_training(path)
    assert is_whole(path) and data.train.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), data.test) == (16, 4, None)
    held, line = open_testing(path, None, data.held_out)
    assert set(held.paths) == set(data.val.paths) and "held out of training" in line
    for index in range(4):
        assert held.content(index) == data.val.content(index)
    assert len(open_testing(path)[0]) == 20
    with pytest.raises(MissingSplit, match="no --split test"):
        open_testing(path, "test")


def test_a_folder_and_its_archive_have_the_same_images_in_the_same_order(tmp_path):
    root = fill(tmp_path / "set", [*photos("cat", 12), "cat/new/1.png", "cat/a/b/2.png"])
    folder, archive = (load_split(path, "train") for path in (root, zipped(root)))
    assert folder.classes == archive.classes and folder.labels.tolist() == archive.labels.tolist()
    for index in range(len(folder)):
        assert folder.content(index) == archive.content(index)


@pytest.mark.parametrize("pack", [str, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("above", ["", "train/", "seg_train/seg_train/"])
def test_images_in_folders_of_a_class_are_its_own_and_that_is_said(above, pack, tmp_path):
    names = [*photos(f"{above}cat"), f"{above}cat/2024/may/8.png", f"{above}dog/old/1.png"]
    path = pack(fill(tmp_path / "set", names))
    train = load_split(path, "train")
    assert len(train) == 12 and train.classes == ("cat", "dog")
    assert [train.labels.tolist().count(label) for label in (0, 1)] == [6, 6]
    (line,) = (line for line in open_training(path).lines if "taken for" in line)
    assert line.startswith("data: 2 images in folders of class folders are taken for images of")
    assert "cat/2024/may/8.png" in line and "dog/old/1.png" in line


def test_kinds_in_kinds_of_a_split_are_the_outer_ones(tmp_path):
    """As for torchvision's ImageFolder; the line says so."""
    root = fill(tmp_path, [f"train/{sex}/{kind}/1.png" for sex in "fm" for kind in ("hat", "shoe")])
    data = open_training(root)
    assert data.train.classes == ("f", "m") and len(data.train) + len(data.val) == 4
    assert any("4 images in folders of class folders" in line for line in data.lines)


@pytest.mark.parametrize("above", ["", "train/"])
def test_images_beside_the_classes_are_told(above, tmp_path):
    extra = [f"{above}{number}.png" for number in range(3)]
    root = fill(tmp_path, [*photos(f"{above}cat", 10), *extra])
    data = open_training(root)
    (line,) = (line for line in data.lines if "not used" in line)
    assert line.startswith("data: not used: 3 images that are beside the class folders (")
    assert len(data.train) + len(data.val) == 20
    report = check_data(str(root), ("train",), 1, lambda *_: None)
    assert any("not used: 3 images that are beside" in warning for warning in report.warnings)
    if not above:
        assert "; not used: 3 images that are beside" in open_testing(root)[1]
        return
    fill(tmp_path, ["val/cat/1.png", "val/2.png"])  # a class less
    (line,) = (line for line in open_training(root).lines if "not used" in line)
    assert "not used: 4 images" in line


@pytest.mark.parametrize("pack", [str, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("above", ["", "train/"])
def test_a_folder_with_images_is_a_class_also_when_it_is_alone(above, pack, tmp_path):
    one = fill(
        tmp_path / "one", [f"{above}cat/1.png", f"{above}cat/2.png", f"{above}cat/old/3.png"]
    )
    images = load_split(pack(one), "train")
    assert images.classes == ("cat",) and len(images) == 3
    if above:
        beside = fill(tmp_path / "beside", [f"{above}1.png", *photos(f"{above}pets/cat")])
        if pack is str:
            assert load_split(beside, "train").classes == ("pets",)
        else:
            with pytest.raises(DataError, match="1 images have no class"):
                load_split(pack(beside), "train")


@pytest.mark.parametrize("val", [photos("val/cat", 2), []])
def test_images_of_no_split_in_an_archive_are_told(val, tmp_path):
    names = [*photos("train/cat", 10), *val, "new/1.png", "new/2.png"]
    data = open_training(zipped(fill(tmp_path / "set", names)))
    assert len(data.train) + len(data.val) == 20 + len(val)
    (line,) = (line for line in data.lines if "not used" in line)
    assert "not used: 2 images" in line and "new/1.png" in line
    with pytest.raises(MissingSplit, match="and no test"):
        load_split(str(tmp_path / "set.zip"), "test")


def test_a_class_may_be_called_train(tmp_path):
    names = [f"{kind}/{number}.png" for kind in ("car", "train", "bus") for number in range(10)]
    data = open_training(fill(tmp_path / "flat", names))
    assert data.train.classes == ("bus", "car", "train")
    assert (len(data.train), len(data.val)) == (24, 6)
    inner = fill(
        tmp_path / "inner", [f"{part}/{name}" for part in ("train", "test") for name in names]
    )
    for path in (inner, zipped(inner)):
        data = open_training(path)
        assert data.train.classes == ("bus", "car", "train") and len(data.test) == 30


@pytest.mark.parametrize("name", ["train_val", "train test", "pretrained", "set", "", "te st"])
def test_what_is_called_otherwise_is_no_part(name):
    assert split_name(name) == ""


def test_an_archive_may_be_called_as_its_parts_are(tmp_path):
    root = fill(tmp_path / "set", [*photos("test_data/train/cat"), *photos("test_data/val/cat", 2)])
    data = open_training(zipped(root))
    assert (len(data.train), len(data.val), data.test) == (10, 4, None)


def test_what_is_said_of_folders_that_are_not_understood(tmp_path):
    folds = fill(tmp_path / "folds", [*photos("fold1/cat"), *photos("fold2/cat")])
    with pytest.raises(DataError, match=r"did you mean --data .*/fold1, or is it to be called tra"):
        open_training(folds)
    with pytest.raises(DataError, match="has images in different places, 'fold1' and 'fold2'"):
        open_training(zipped(folds))
    mixed = fill(tmp_path / "mixed", [*photos("cat"), *photos("test/cat")])
    with pytest.raises(DataError, match=r"folders of images \(cat, dog\): move them into .*/tr"):
        open_training(mixed)
    boxed = tmp_path / "boxed"
    boxed.mkdir()
    shutil.move(zipped(fill(tmp_path / "set", photos("cat"))), boxed)
    with pytest.raises(DataError, match=r"did you mean --data .*/boxed/set\.zip\?"):
        open_training(boxed)
    above = fill(tmp_path / "above", [*photos("mine/train/cat"), *photos("theirs/train/cat")])
    with pytest.raises(DataError, match=r"did you mean --data .*/above/mine\?"):
        open_training(above)


def test_a_circle_of_links_ends(tmp_path):
    root = fill(tmp_path, photos("cat"))
    (root / "cat" / "again").symlink_to(root)
    with pytest.raises(DataError, match="more than 8 deep"):
        load_split(root, "train")


def test_one_part_of_several_archives_is_refused(tmp_path):
    for part, count in (("train", 10), ("test", 4)):
        zipped(fill(tmp_path / part, photos("cat", count)))
        shutil.rmtree(tmp_path / part)
    with pytest.raises(DataError, match="one part of a data set that has test, too; did you mean"):
        open_training(tmp_path / "train.zip")
    data = open_training(tmp_path / "train.zip", 0.5)
    assert (len(data.train), len(data.val)) == (10, 10)
    data = open_training(tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (16, 4, 8)
    tested, line = open_testing(tmp_path / "test.zip", None, data.held_out)
    assert len(tested) == 8 and "testing on all 8 images" in line
    assert len(open_testing(tmp_path / "test.zip", "test")[0]) == 8  # as its name says
    with pytest.raises(MissingSplit, match="no --split val"):
        open_testing(tmp_path / "test.zip", "val")
