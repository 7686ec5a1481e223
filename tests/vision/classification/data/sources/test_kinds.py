"""What the path given with --data is taken for."""

import pytest

from official.vision.classification.data.dataset import ImageDataset
from official.vision.classification.data.folder import load_split, passed_over
from official.vision.classification.data.sources.cifar_archive import CifarArchive
from official.vision.classification.errors import DataError
from tests.vision.classification.data.cifar_files import cifar10_files, cifar100_files, unpack
from tests.vision.classification.data.sources.test_cub import LISTS
from tests.vision.classification.data.test_folder import fill

CUB = {f"CUB_200_2011/{name}": text.encode() for name, text in LISTS.items()}
TREE = {"set/train/a/1.jpg": b"", "set/val/a/2.jpg": b""}
CSV = {"set/train.csv": b"1.jpg,a", "set/val.csv": b"2.jpg,a"}
KINDS = {"cifar-10": cifar10_files(2), "cifar-100": cifar100_files(5), "cub": CUB, "csv": CSV}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_known_by_what_is_in_the_folder(kind, tmp_path):
    root = unpack(KINDS[kind], tmp_path).rename(tmp_path / "images")
    expected = CifarArchive if kind.startswith("cifar") else ImageDataset
    for split in ("train", "val"):
        folder = load_split(root, split)
        assert type(folder) is expected and len(folder)


@pytest.mark.parametrize("split", ["train", "val"])
def test_folders_of_images_come_first(split, tmp_path):
    """A list or a text beside them, as downloads often have, changes nothing."""
    root = unpack(TREE, tmp_path)
    expected = load_split(root, split)
    unpack(CSV, tmp_path)
    unpack({f"set/{name.split('/')[1]}": CUB[name] for name in CUB}, tmp_path)
    fill(root, ["batches.meta", "test_batch", "meta", "test"])
    found = load_split(root, split)
    assert (found.root, found.paths, found.classes) == (root / split, expected.paths, ("a",))


def test_a_folder_of_images_lacks_a_split_whatever_is_beside_it(tmp_path):
    root = unpack(CSV, tmp_path)
    fill(root, ["train/a/1.jpg"])
    with pytest.raises(DataError, match="/val or .*/test: no such folder; expected val images"):
        load_split(root, "val")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "csv"])
def test_the_folder_around_an_unpacked_archive(kind, tmp_path):
    root = unpack(KINDS[kind], tmp_path)
    fill(tmp_path, ["0/readme.txt", "a.tgz"])
    with pytest.raises(DataError) as caught:
        load_split(tmp_path, "train")
    assert str(caught.value).endswith(f"; did you mean --data {root}?")


@pytest.mark.parametrize(
    "names", [["meta"], ["batches.meta"], ["train"], ["images.txt"], ["a.csv"]]
)
def test_one_name_alone_is_no_data_set(names, tmp_path):
    fill(tmp_path, names)
    with pytest.raises(DataError, match="/train: no such folder; expected train images"):
        load_split(tmp_path, "train")


def test_a_path_that_is_not_there(tmp_path):
    for path in (tmp_path / "no.csv", "no\0.csv"):
        with pytest.raises(DataError) as caught:
            load_split(path, "train")
        assert str(caught.value).startswith(f"{path}: no such folder or file; give the data set")


def test_files_that_are_passed_over(tmp_path):
    names = ["a/1.jpg", "a/2.txt", "a/.3.txt", "a/4.jpg.part", "b/1.PNG", "b/sub/1.jpg", "5.jpg"]
    root = fill(tmp_path / "train", names).parent
    found = passed_over(load_split(root, "train"))
    assert found == [f"{root}/train/{name}" for name in ("a/2.txt", "a/4.jpg.part")]


def test_other_kinds_pass_over_nothing(tmp_path):
    for kind in KINDS:
        assert passed_over(load_split(unpack(KINDS[kind], tmp_path / kind), "train")) == []
    fill(tmp_path, ["secret/1.txt"])
    (tmp_path / "l.csv").write_text(f"1.jpg,{tmp_path}/secret\n2.jpg,..\n")
    assert passed_over(load_split(tmp_path / "l.csv", "val")) == []
