import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from official.vision.classification.data.folder import ImageDataset, load_split
from official.vision.classification.engine.labels import apply_class_map, label, read_class_map
from official.vision.classification.errors import DataError, UsageError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.zoo.classes import class_names, match_classes, standard_names
from official.vision.classification.zoo.trained import Network, PretrainedConfig

CLASSES = ("n02012849", "n02127052", "n03126707", "n03710637")
NAMES = ("crane", "lynx", "crane", "maillot")  # two of them share a name, as in ImageNet


@pytest.fixture
def folder(tmp_path):
    """Three classes of one, two and three images."""
    paths = tuple(f"{index}.png" for index in range(6))
    return ImageDataset(
        tmp_path, ("bird", "cat", "swim"), paths, np.array([0, 1, 1, 2, 2, 2], "i4")
    )


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_a_file_is_read(tmp_path, dump):
    path = tmp_path / "map"
    values = {"bird": 0, "cat": "lynx", "山猫": "n02127052", "001": 3, "no": "yes", "1e3": "007"}
    path.write_text(dump(values), encoding="utf-8")
    assert read_class_map(str(path)) == values


def test_folders_are_named_as_they_are_written(tmp_path):
    """YAML reads 001 as 1, 010 as 8, and no as false."""
    path = tmp_path / "map.yaml"
    path.write_text("001: 4\n010: lynx\nno: 2\n1.50: 1\nnull: 0\n2001-01-01: 9\n~: 8\n'7': 7\n")
    assert read_class_map(str(path)) == {
        "001": 4,
        "010": "lynx",
        "no": 2,
        "1.50": 1,
        "null": 0,
        "2001-01-01": 9,
        "~": 8,
        "7": 7,
    }


def test_numbers_are_decimal(tmp_path):
    """YAML 1.1 reads 010 as eight, 0x10 as sixteen and 1:30 as ninety."""
    path = tmp_path / "map.yaml"
    path.write_text("a: 010\nb: 0x10\nc: 1:30\nd: 0b1\ne: -1\nf: 1_0\ng: '3'\nh: 08\n")
    assert read_class_map(str(path)) == {
        "a": 10,
        "b": "0x10",
        "c": "1:30",
        "d": "0b1",
        "e": -1,
        "f": "1_0",
        "g": "3",
        "h": "08",  # no number to YAML
    }


def refused(call, *args, error=UsageError):
    with pytest.raises(error) as caught:
        call(*args)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", "bird", "3", "- bird\n- cat\n", "bird: [1]", "bird: {a: 1}", "bird: true", "bird: 1.5"]
    + ["bird: null", "bird:", "bird: 2001-01-01", "<<: {a: 1}"],
)
def test_what_is_no_map_is_refused(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    assert refused(read_class_map, str(path)) == (
        f"--class-map {path}: expected lines of folder: class, with a class's number or name"
    )


@pytest.mark.parametrize(
    "data",
    [b"{", b"a: b: c", b"\xff\xfe\x00", b"[1]: 2", b"{a: 1}: 2", b"a: !!python/name:os.system x"]
    + [b"a: 2001-99-99", b"[" * 5000, b"a: 1\nb: 2\na: 3", b'{"1": 0, "1": 2}'],
)
def test_what_is_no_yaml_is_refused(tmp_path, data):
    path = tmp_path / "map.yaml"
    path.write_bytes(data)
    message = refused(read_class_map, str(path))
    assert message.startswith(f"--class-map {path}: not YAML or JSON: ")


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path, tmp_path / "missing.yaml"):
        assert refused(read_class_map, str(path)).startswith(f"--class-map {path}: cannot be read")


@pytest.mark.parametrize(
    ("cat", "index"),
    [(1, 1), (0, 0), (3, 3), ("lynx", 1), ("maillot", 3), ("n02127052", 1), ("n03126707", 2)],
)
def test_a_class_is_a_number_a_folder_or_a_name(folder, cat, index):
    class_map = {"swim": 3, "cat": cat, "bird": 2}
    mapped = apply_class_map(folder, class_map, CLASSES, NAMES)
    assert mapped.labels.tolist() == [2, index, index, 3, 3, 3]
    assert mapped.labels.dtype == np.int32
    assert (mapped.classes, mapped.paths, mapped.root) == (CLASSES, folder.paths, folder.root)
    assert folder.labels.tolist() == [0, 1, 1, 2, 2, 2]  # as it was


def test_several_folders_may_show_one_class_and_more_may_be_in_the_map(folder):
    class_map = {"bird": "n02012849", "cat": 0, "swim": 0, "dog": "no such class"}
    mapped = apply_class_map(folder, class_map, CLASSES, NAMES)
    assert mapped.labels.tolist() == [0] * 6


def test_a_network_that_does_not_know_its_classes(folder):
    names = ("class_0", "class_1", "class_2")
    mapped = apply_class_map(folder, {"bird": 2, "cat": "class_0", "swim": 1}, None, names)
    assert mapped.labels.tolist() == [2, 0, 0, 1, 1, 1]
    assert mapped.classes == names


def test_the_folder_of_a_class_comes_before_what_it_is_called(folder):
    classes, names = ("a", "b", "c"), ("b", "c", "a")
    mapped = apply_class_map(folder, {"bird": "a", "cat": "b", "swim": "c"}, classes, names)
    assert mapped.labels.tolist() == [0, 1, 1, 2, 2, 2]


def test_digits_in_quotes_are_a_name(folder):
    classes = ("2", "0", "1")
    mapped = apply_class_map(folder, {"bird": "0", "cat": 0, "swim": "2"}, classes, classes)
    assert mapped.labels.tolist() == [1, 0, 0, 0, 0, 0]


def test_a_folder_that_is_not_in_the_map(folder):
    message = refused(
        apply_class_map, folder, {"bird": 0, "swim": 1}, CLASSES, NAMES, error=DataError
    )
    assert (
        message == f"{folder.root}: class folder cat is not in the --class-map; add a line for it"
    )


NO_CLASS = "is not a class of the network, which has crane, lynx, crane, …, or 0 to 3"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (4, "class 4 is not one of 0 to 3"),
        (-1, "class -1 is not one of 0 to 3"),
        ("crane", "several classes are called crane; use a number"),
        ("Lynx", f"'Lynx' {NO_CLASS}"),
        ("1", f"'1' {NO_CLASS}"),
        ("", f"'' {NO_CLASS}"),
        ("\033[2J", rf"'\x1b[2J' {NO_CLASS}"),
    ],
)
def test_a_class_that_the_network_does_not_have(folder, value, message):
    class_map = {"bird": 0, "cat": 1, "swim": value}
    found = refused(apply_class_map, folder, class_map, CLASSES, NAMES)
    assert found == f"--class-map: {message}"


# By names


def knowing(**values):
    """A network of three colours, of whose classes something else may be known."""
    config = PretrainedConfig(Preprocess(), ("blue", "green", "red"), num_classes=3)
    return Network(None, replace(config, **values))


def test_guessed_classes_give_way_to_sorted_folders_of_their_number(tiny_images, caplog):
    folder = load_split(tiny_images, "val")
    network = knowing(classes=("a", "b", "c"), classes_by="row")
    assert label(folder, network) is folder
    (warning,) = caplog.messages
    assert warning.startswith(f"{tiny_images / 'val'}: its folders are not named as")
    assert "(a, b, c, …)" in warning and "--class-map" in warning
    network = knowing(classes=("red", "green", "blue"))
    assert label(folder, network).labels.tolist() == [2] * 5 + [1] * 5 + [0] * 5
    assert len(caplog.messages) == 1


def test_labels_follow_the_networks_classes_by_name(tiny_images):
    network = knowing()
    folder = load_split(tiny_images, "val")
    assert label(folder, network).labels.tolist() == folder.labels.tolist()
    network = knowing(classes=("red", "yellow", "blue", "green"))
    assert set(label(folder, network).labels[folder.labels == 0]) == {2}  # blue


def test_labels_of_foreign_folders_are_refused(tiny_images):
    network = knowing(classes=("a", "b", "c"))
    with pytest.raises(DataError, match="not among the 3 expected classes .* --class-map"):
        label(load_split(tiny_images, "val"), network)


def test_bare_weights_take_sorted_folders_if_their_number_fits(tiny_images, caplog):
    network = knowing(classes=None, classes_by="assumed", source="w.pkl")
    folder = load_split(tiny_images, "val")
    assert label(folder, network) is folder
    (warning,) = caplog.messages
    assert "w.pkl does not name its classes" in warning and "--class-map" in warning
    network = knowing(classes=None, num_classes=4)
    with pytest.raises(DataError, match="3 class folders, but the weights have 4 classes"):
        label(folder, network)


@pytest.mark.parametrize(
    ("classes", "places"),
    [
        (("red", "blue", "green"), [2, 0, 1]),
        (("0", "2", "1"), [0, 2, 1]),
        (("000", "001", "002"), [0, 1, 2]),
        (("2",), [2]),
    ],
)
def test_names_and_numbers(tmp_path, classes, places):
    known = ("blue", "green", "red") if classes[0] == "red" else None
    folder = ImageDataset(tmp_path, classes, classes, np.arange(len(classes), dtype=np.int32))
    assert label(folder, knowing(classes=known)).labels.tolist() == places


def test_what_mmpretrain_calls_imagenets_classes():
    """Such as ``tench, Tinca tinca``. Of two cranes nobody knows which is meant."""
    names = class_names("ImageNet-1k")
    wordy = tuple(f"{name.replace('_', ' ')}, in Latin" for name in names.values())
    assert standard_names(wordy) == tuple(names)
    assert standard_names(wordy[:999]) == wordy[:999]
    folders = tuple(names)
    assert match_classes(["goldfish", "n01440764"], folders) == [1, 0]
    assert match_classes(["crane"], folders) is None
