from official.vision.classification.zoo.classes import (
    default_classes,
    display_names,
    imagenet_names,
)


def test_imagenet():
    names = imagenet_names()
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


def test_classes_of_weights_that_do_not_tell():
    assert default_classes(1000) == tuple(imagenet_names())
    assert default_classes(10) is None


def test_what_to_call_them():
    assert display_names(None, 3) == ("class_0", "class_1", "class_2")
    assert display_names(("n02127052", "my cat", "n99999999"), 3) == ("lynx", "my cat", "n99999999")
    assert display_names(default_classes(1000), 1000)[287] == "lynx"


def test_a_name_from_a_file_cannot_steer_the_terminal():
    assert display_names(("\x1b[2Jcat", "a\nb", "\ud800", "山猫"), 4) == (
        "?[2Jcat",
        "a?b",
        "?",
        "山猫",
    )
