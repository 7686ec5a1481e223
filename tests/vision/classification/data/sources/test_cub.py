import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.errors import DataError

LISTS = {
    "classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n10 010.Red_Blackbird\n",
    "images.txt": (
        "1 001.Black_footed_Albatross/B_0046_18.jpg\n"
        "2 001.Black_footed_Albatross/B_0009_34.jpg\n"
        "3 002.Laysan_Albatross/L_0002_1027.jpg\n"
        "4 010.Red_Blackbird/R_0012_6015.jpg\n"
        "5 010.Red_Blackbird/R_0001 x.jpg\n"
    ),
    "image_class_labels.txt": "1 1\n2 1\n3 2\n4 10\n5 10\n",
    "train_test_split.txt": "1 0\n2 1\n3 1\n4 0\n5 1\n",
}
CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "010.Red_Blackbird")


@pytest.fixture()
def cub(tmp_path):
    """Makes the folder, with what is given in place of a list; None leaves that out."""

    def make(**changes):
        for name, text in {**LISTS, **{f"{k}.txt": v for k, v in changes.items()}}.items():
            if text is None:
                (tmp_path / name).unlink()
            else:
                (tmp_path / name).write_bytes(text.encode())
        return tmp_path

    return make


def names(folder):
    return [path[len(f"{folder.root}/images/") :] for path in folder.paths]


def refusal(root, split="train"):
    with pytest.raises(DataError) as caught:
        load_split(root, split)
    message = str(caught.value)
    assert message.startswith(f"{root}/") and "\n" not in message
    return message[len(f"{root}/") :]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_official_split(cub, end):
    root = cub(**{name[:-4]: text.replace("\n", end) for name, text in LISTS.items()})
    (root / "images").mkdir()
    train, test = load_split(root, "train"), load_split(str(root), "val")
    assert train.classes == test.classes == CLASSES
    assert names(train) == [
        "001.Black_footed_Albatross/B_0009_34.jpg",
        "002.Laysan_Albatross/L_0002_1027.jpg",
        "010.Red_Blackbird/R_0001 x.jpg",
    ]
    assert names(test) == [
        "001.Black_footed_Albatross/B_0046_18.jpg",
        "010.Red_Blackbird/R_0012_6015.jpg",
    ]
    assert train.labels.tolist() == [0, 1, 2] and test.labels.tolist() == [0, 2]
    assert train.labels.dtype == np.int32
    assert all(path.startswith(f"{root}/images/") for path in train.paths)


def test_labels_come_from_the_list_and_not_from_the_folders_name(cub):
    root = cub(image_class_labels="5 2\n4 1\n3 10\n2 1\n1 2\n")
    assert load_split(root, "train").labels.tolist() == [0, 2, 1]
    assert load_split(root, "val").labels.tolist() == [1, 0]


def test_classes_are_in_the_order_of_their_numbers(cub):
    root = cub(classes="10 a\n2 c\n1 b\n")
    assert load_split(root, "train").classes == ("b", "c", "a")
    assert load_split(root, "train").labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("missing", LISTS)
def test_a_missing_list_is_named(cub, missing):
    root = cub(**{missing[:-4]: "x"})
    (root / missing).unlink()
    assert refusal(root).startswith(f"{missing}: cannot be read: No such file")


WRONG = {
    "an empty list": ({"classes": "\n"}, "classes.txt: is empty"),
    "no number": ({"images": "x y.jpg\n"}, "images.txt: line 1 is 'x y.jpg'"),
    "no text": ({"images": "1 a.jpg\n2\n"}, "images.txt: line 2 is '2'"),
    "a number twice": ({"images": "1 a.jpg\n1 b.jpg\n"}, "images.txt: line 2 is '1 b.jpg'"),
    "a huge number": ({"images": f"{'9' * 5000} a\n"}, "images.txt: line 1 is '999"),
    "a label for no image": (
        {"image_class_labels": LISTS["image_class_labels.txt"] + "6 1\n"},
        "images.txt: has no image 6",
    ),
    "no label for an image": (
        {"image_class_labels": "1 1\n2 1\n3 2\n4 10\n"},
        "image_class_labels.txt: has no image 5",
    ),
    "a list that is cut": (
        {"train_test_split": "1 0\n2 1\n3 1\n4"},
        "train_test_split.txt: line 4 is '4'",
    ),
    "no split for an image": (
        {"train_test_split": "1 0\n2 1\n4 0\n5 1\n"},
        "train_test_split.txt: has no image 3",
    ),
    "a split of another kind": (
        {"train_test_split": "1 0\n2 2\n3 1\n4 0\n5 1\n"},
        "train_test_split.txt: image 2 has '2'; expected 0 to 1",
    ),
    "a class that is none": (
        {"image_class_labels": "1 1\n2 x\n3 2\n4 10\n5 10\n"},
        "image_class_labels.txt: image 2 has 'x'; expected 0 to 10",
    ),
    "a class that is not there": (
        {"image_class_labels": "1 1\n2 3\n3 2\n4 10\n5 10\n"},
        "image_class_labels.txt: class 3 is not in classes.txt",
    ),
    "nothing to train on": (
        {"train_test_split": "1 0\n2 0\n3 0\n4 0\n5 0\n"},
        "train_test_split.txt: has no image for train",
    ),
    "a null character": ({"images": "1 a\0.jpg\n"}, "images.txt: holds a null character"),
}


@pytest.mark.parametrize("case", WRONG)
def test_lists_that_do_not_fit(cub, case):
    changes, reason = WRONG[case]
    message = refusal(cub(**changes))
    assert message.startswith(reason) and len(message) < 200


def test_a_list_that_is_no_text(cub):
    root = cub()
    (root / "classes.txt").write_bytes(b"1 \xff\xfe\n")
    assert refusal(root) == "classes.txt: is no text in UTF-8"
