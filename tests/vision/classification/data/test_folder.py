import numpy as np
import pytest

from official.vision.classification.data.folder import load_folder, load_split
from official.vision.classification.errors import DataError


def fill(root, files):
    """Make empty files; only names matter here."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(folder):
    """Class and file name of each image, by the folder's own labels."""
    for path, label in zip(folder.paths, folder.labels):
        assert path.split("/")[-2] == folder.classes[label]
    return ["/".join(path.split("/")[-2:]) for path in folder.paths]


def test_order_and_labels(tmp_path):
    fill(tmp_path, ["n2/b.jpg", "n10/z.png", "n2/a.jpg", "n2/A.JPEG", "Z/1.webp", "é/1.bmp"])
    folder = load_folder(tmp_path)
    assert folder.classes == ("Z", "n10", "n2", "é")
    assert names(folder) == [
        "Z/1.webp",
        "n10/z.png",
        "n2/A.JPEG",
        "n2/a.jpg",
        "n2/b.jpg",
        "é/1.bmp",
    ]
    assert folder.labels.tolist() == [0, 1, 2, 2, 2, 3] and folder.labels.dtype == np.int32
    assert len(folder) == 6
    assert all(path.startswith(str(tmp_path)) for path in folder.paths)


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    files = [f"{c}/{i}.jpg" for c in "dabc" for i in (3, 1, 2)]
    forth = load_folder(fill(tmp_path / "forth", files))
    back = load_folder(fill(tmp_path / "back", files[::-1]))
    assert names(forth) == names(back) == sorted(files)
    assert forth.classes == back.classes == ("a", "b", "c", "d")


def test_what_is_no_image_is_passed_over(tmp_path):
    ignored = ["a/.hidden.jpg", "a/._1.jpg", "a/Thumbs.db", "a/1.txt", "a/1.jpg.part", "a/jpg"]
    ignored += [".git/1.jpg", "README.md", "1.jpg", "__MACOSX/a/1.jpg", "a/@eaDir/1.jpg/big.jpg"]
    fill(tmp_path, [*ignored, "a/1.jpg"])
    folder = load_folder(tmp_path)
    assert folder.classes == ("a",) and names(folder) == ["a/1.jpg"]


def test_links(tmp_path):
    """Linked folders and images count. A link to nowhere does too: reading it names it."""
    fill(tmp_path, ["store/x/1.jpg", "root/a/1.jpg"])
    (tmp_path / "root" / "b").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "root" / "a" / "2.jpg").symlink_to(tmp_path / "store" / "x" / "1.jpg")
    (tmp_path / "root" / "a" / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    assert names(load_folder(tmp_path / "root")) == ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b/1.jpg"]


def test_links_in_a_circle(tmp_path):
    """One in place of an image is named when it is read; one in place of a class is no class."""
    fill(tmp_path, ["train/a/1.jpg", "train/b/1.jpg"])
    for place in ("train/a/2.jpg", "train/c", "val"):
        (tmp_path / place).symlink_to(tmp_path / place)
    folder = load_split(tmp_path, "train")
    assert folder.classes == ("a", "b")
    assert names(folder) == ["a/1.jpg", "a/2.jpg", "b/1.jpg"]
    with pytest.raises(DataError, match=r"a/2\.jpg: cannot be read: Too many levels"):
        folder.read(1)


def test_a_class_without_images_is_named(tmp_path):
    fill(tmp_path, ["a/1.jpg", "b/notes.txt", "c/1.jpg"])
    with pytest.raises(DataError, match="/b: no images"):
        load_folder(tmp_path)


def test_no_classes(tmp_path):
    fill(tmp_path, ["1.jpg", ".hidden/1.jpg"])
    with pytest.raises(DataError, match="no class folders") as caught:
        load_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_root_that_is_missing_or_a_file(tmp_path):
    file = tmp_path / "archive.tar"
    file.touch()
    for root in (tmp_path / "missing", file):
        for load in (load_folder, lambda root: load_split(root, "train")):
            with pytest.raises(DataError) as caught:
                load(root)
            assert str(caught.value).startswith(f"{root}: ")


def test_splits(tmp_path):
    fill(tmp_path, ["train/a/1.jpg", "test/b/1.jpg"])
    assert load_split(tmp_path, "train").classes == ("a",)
    assert load_split(str(tmp_path), "val").classes == ("b",)
    fill(tmp_path, ["val/c/1.jpg"])
    assert load_split(tmp_path, "val").classes == ("c",)  # val comes before test


def test_a_missing_split_is_named(tmp_path):
    fill(tmp_path, ["val/a/1.jpg"])
    with pytest.raises(DataError) as caught:
        load_split(tmp_path, "train")
    assert str(tmp_path / "train") in str(caught.value)
    (tmp_path / "val").rename(tmp_path / "train")
    with pytest.raises(DataError) as caught:
        load_split(tmp_path, "val")
    assert str(tmp_path / "val") in str(caught.value)
    assert str(tmp_path / "test") in str(caught.value)


@pytest.mark.parametrize("classes", ["cab", ["b", "x", "c", "y", "a"], ("a", "b", "c")])
def test_relabel_goes_by_name(tmp_path, classes):
    fill(tmp_path, ["a/1.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg"])
    folder = load_folder(tmp_path)
    other = folder.relabel(classes)
    assert other.classes == tuple(classes)
    assert other.paths == folder.paths and other.labels.dtype == np.int32
    assert [other.classes[label] for label in other.labels] == ["a", "b", "b", "c"]
    assert folder.labels.tolist() == [0, 1, 1, 2]  # the first one is as it was


def test_relabel_refuses_a_foreign_class(tmp_path):
    fill(tmp_path, ["a/1.jpg", "b/1.jpg", "c/1.jpg"])
    with pytest.raises(DataError) as caught:
        load_folder(tmp_path).relabel(["a", "c", "dd"])
    message = str(caught.value)
    assert "(b)" in message and "3 expected" in message and "dd" in message
    assert str(tmp_path) in message


def test_a_long_list_of_foreign_classes_is_not_printed_whole(tmp_path):
    fill(tmp_path, [f"class{number:03}/1.jpg" for number in range(50)])
    with pytest.raises(DataError) as caught:
        load_folder(tmp_path).relabel([f"other{number}" for number in range(1000)])
    message = str(caught.value)
    assert "class000" in message and "class049" not in message and "1000 expected" in message
    assert len(message) < 300 + len(str(tmp_path))
