"""Lists of images as Kaggle's competitions have them."""

import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.splits import is_whole, open_testing, open_training
from official.vision.classification.errors import DataError

LABELS = ["cat", "dog"] * 10


def fill(root, list_name, head, folder, suffix=".jpg", listed="", labels=LABELS):
    """A list of images, which are in ``folder``; ``listed`` is what the list puts before names."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    rows = [head]
    for number, label in enumerate(labels):
        (root / folder / f"{number:02}.jpg").touch()
        rows.append(f"{listed}{number:02}{suffix},{label}")
    (root / list_name).write_text("\n".join(rows))
    return root


def unlabelled(folder):
    folder.mkdir(exist_ok=True)
    for number in range(4):
        (folder / f"{number:02}.jpg").touch()  # called as those of the list


FORMS = {  # the list, its head, the folder, what is left of the names, what is put before
    "cassava": ("train.csv", "image_id,label", "train_images", ".jpg", ""),
    "dog breeds": ("labels.csv", "id,breed", "train", "", ""),
    "whales": ("train.csv", "Image,Id", "train", ".jpg", ""),
    "retinas": ("train.csv", "id_code,diagnosis", "train_images", "", ""),
    "with paths": ("data.csv", "image_path,class_name", "photos", ".jpg", "photos/"),
    "one folder": ("images.csv", "image,label", "images", ".jpg", ""),
    "labels of train": ("train_labels.csv", "filename,label", "train", ".jpg", ""),
    "tabs": ("all.tsv", "filename\tlabel", "pictures", "", ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_are_found_and_held_out_of(form, tmp_path):
    name, head, folder, suffix, before = FORMS[form]
    root = fill(tmp_path, name, head, folder, suffix, before)
    if name.endswith(".tsv"):
        (root / name).write_text((root / name).read_text().replace(",", "\t"))
    unlabelled(root / "test")
    (root / "sample_submission.csv").write_text("id,label\n00,cat\n01,dog\n")
    for path in (root, root / name):
        data = open_training(path)
        assert data.train.classes == ("cat", "dog") and data.test is None
        assert (len(data.train), len(data.val)) == (16, 4) and data.held_out is not None
        expected = {f"{root / folder}/{number:02}.jpg" for number in range(20)}
        assert {*data.train.paths, *data.val.paths} == expected
        for images in (data.train, data.val):
            for path_, label in zip(images.paths, images.labels):
                assert LABELS[int(path_[-6:-4])] == images.classes[label]
        told = [line for line in data.lines if line.endswith(f"in {root / folder}")]
        assert len(told) == (not before)
        assert all(("without suffixes" in line) == (not suffix) for line in told)
        held, line = open_testing(path, None, data.held_out)
        assert set(held.paths) == set(data.val.paths) and "held out" in line


def test_folders_of_the_split_come_first(tmp_path):
    """Images of other splits may have the same names."""
    head = "path,label"
    for split in ("train", "val"):
        fill(tmp_path, f"{split}.csv", head, f"{split}_images", labels=LABELS[:6])
    unlabelled(tmp_path / "a")
    for split in ("train", "val"):
        images = load_split(tmp_path, split)
        assert {path.split("/")[-2] for path in images.paths} == {f"{split}_images"}
    (tmp_path / "train.csv").write_text("path,label,split\n0,a,train\n1,b,train\n2,b,val\n")
    for split in ("train", "val"):
        for number in range(3):
            (tmp_path / f"{split}_images" / f"{number}.png").touch()
    for split in ("train", "val"):
        images = load_split(tmp_path / "train.csv", split)
        assert {path.split("/")[-2] for path in images.paths} == {f"{split}_images"}


def test_images_beside_the_list_come_first(tmp_path):
    root = fill(tmp_path, "l.csv", "path,label", ".")
    unlabelled(root / "train")
    assert set(load_split(root, "train").paths) == {f"{root}/{n:02}.jpg" for n in range(20)}


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_some_images_may_be_lacking(suffix, tmp_path):
    """The list is right about where the others are; who reads those that lack is told."""
    root = fill(tmp_path, "train.csv", "id,label", "images", suffix=suffix)
    for number in (0, 3, 4, 9):
        (root / "images" / f"{number:02}.jpg").unlink()
    images = load_split(root, "train")
    assert images.paths[1] == f"{root}/images/01.jpg"
    with pytest.raises(DataError, match=f"/images/00{suffix}: no such image"):
        images.read(0)


def test_names_that_no_file_has_are_no_trouble(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text("id,label\n" + f"{'x' * 5000},a\ny,b\n")
    (tmp_path / "closed").mkdir(mode=0)
    try:
        assert load_split(path, "train").paths[1] == f"{tmp_path}/y"
    finally:
        (tmp_path / "closed").chmod(0o755)


def test_folders_of_classes_count_more_than_a_list(tmp_path):
    root = fill(tmp_path, "all.csv", "path,label", "cat", listed="cat/")
    unlabelled(root / "dog")
    data = open_training(root)
    assert data.train.root == root and len(data.train) + len(data.val) == 24
    (root / "train").mkdir()
    for name in ("cat", "dog"):
        (root / name).rename(root / "train" / name)
    assert open_training(root).train.root == root / "train"


def test_several_lists_and_none_of_them_named(tmp_path):
    root = fill(tmp_path, "one.csv", "id,label", "images", suffix="")
    fill(root, "two.csv", "id,label", "images", suffix="")
    with pytest.raises(DataError, match=r"several lists of images \(one.csv, two.csv\); give"):
        open_training(root)
    for useless in ("id,width,height\n00,3,4\n", "id,class\n00,a\n", "id,class\nx,a\ny,b\n"):
        (root / "two.csv").write_text(useless)
        assert is_whole(root) and len(load_split(root, "train")) == 20


def test_one_class_is_none(tmp_path):
    """``photos/images`` and no list: a network would be right about all of them."""
    unlabelled(tmp_path / "images")
    with pytest.raises(DataError, match=r"has one class \(images\); a classifier needs two"):
        open_training(tmp_path)
