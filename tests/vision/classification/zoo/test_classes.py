import hashlib

import pytest

from official.vision.classification.zoo.classes import (
    class_names,
    dataset_classes,
    default_classes,
    display_names,
)


def test_imagenet():
    names = class_names("ImageNet-1k")
    assert len(names) == 1000
    assert list(names) == sorted(names)  # the order of the logits is that of the folders
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdigit() for wnid in names)
    assert all(name == name.strip() and name for name in names.values())
    by_index = list(names.items())
    # Two birds and machines, and two bathing suits, share a name, which a list by name gets wrong.
    for index, wnid, name in [
        (0, "n01440764", "tench"),
        (134, "n02012849", "crane"),
        (207, "n02099601", "golden_retriever"),
        (281, "n02123045", "tabby"),
        (287, "n02127052", "lynx"),
        (517, "n03126707", "crane"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "maillot"),
        (999, "n15075141", "toilet_tissue"),
    ]:
        assert by_index[index] == (wnid, name)


@pytest.mark.parametrize(
    ("dataset", "count", "digest", "some"),
    [
        ("CIFAR-10", 10, "bb3914949cecedee", {0: "airplane", 3: "cat", 9: "truck"}),
        ("CIFAR-100", 100, "fbe8ad23bbaf2496", {0: "apple", 58: "pickup_truck", 99: "worm"}),
        ("CUB-200-2011", 200, "5c4ad6e85652ad6f", {0: "Black_footed_Albatross", 102: "Sayornis"}),
    ],
)
def test_the_smaller_data_sets(dataset, count, digest, some):
    """In the order of MMPreTrain's lists, whose sha256 this is, one name per line."""
    names = list(class_names(dataset).values())
    assert len(names) == count == len(class_names(dataset))
    assert hashlib.sha256("\n".join(names).encode()).hexdigest().startswith(digest)
    assert {index: names[index] for index in some} == some
    folders = list(dataset_classes(dataset))
    assert folders == list(class_names(dataset)) == sorted(folders)


def test_folders_are_named_as_the_data_sets_name_them():
    assert dataset_classes("CIFAR-10") == tuple(class_names("CIFAR-10").values())
    assert dataset_classes("CIFAR-100") == tuple(class_names("CIFAR-100").values())
    for index, (folder, name) in enumerate(class_names("CUB-200-2011").items(), 1):
        assert folder == f"{index:03d}.{name}"


def test_a_data_set_that_is_not_known():
    assert dataset_classes("ImageNet-21k") is None


def test_classes_of_weights_that_do_not_tell():
    assert default_classes(1000) == tuple(class_names("ImageNet-1k"))
    for count in (0, 10, 100, 200, 999):  # any data set may have as many
        assert default_classes(count) is None


def test_what_to_call_them():
    assert display_names(None, 3) == ("class_0", "class_1", "class_2")
    assert display_names(("n02127052", "my cat", "n99999999"), 3) == ("lynx", "my cat", "n99999999")
    assert display_names(default_classes(1000), 1000)[287] == "lynx"
    assert display_names(("014.Indigo_Bunting", "horse"), 2) == ("Indigo_Bunting", "horse")


def test_a_name_from_a_file_cannot_steer_the_terminal():
    assert display_names(("\x1b[2Jcat", "a\nb", "\ud800", "山猫"), 4) == (
        r"\x1b[2Jcat",
        r"a\nb",
        r"\ud800",
        "山猫",
    )
