import json
from collections import Counter

import numpy as np
import pytest

from official.vision.classification.data.augment import TrainTransform
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.loader import Loader
from official.vision.classification.data.sampler import BatchIndices
from official.vision.classification.data.splits import (
    HeldOut,
    count_trained_on,
    is_whole,
    keys,
    open_testing,
    open_training,
)
from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.errors import DataError, MissingSplit, UsageError
from tests.vision.classification.data.cifar_files import cifar10_files, packed

CLASSES = {"ant": 10, "bee": 25, "cat": 3, "dog": 1}


def fill(root, classes=None, name="{:03}.jpg"):
    for label, count in (classes or CLASSES).items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            (root / label / name.format(index)).touch()
    return root


def counts(images):
    return Counter(images.classes[label] for label in images.labels)


def names(images):
    return {path.split("/", images.root.as_posix().count("/") + 1)[-1] for path in images.paths}


@pytest.mark.parametrize("share", [None, 0.1, 0.5, 0.9])
def test_a_share_of_every_class_is_held_out(tmp_path, share):
    data = open_training(fill(tmp_path), share)
    expected = {}
    for name, count in CLASSES.items():
        held = max(1, round((share or 0.2) * count)) if count > 1 else 0
        expected[name] = min(held, count - 1)
    assert counts(data.val) == Counter({k: v for k, v in expected.items() if v})
    assert counts(data.train) == Counter({k: v - expected[k] for k, v in CLASSES.items()})
    assert not set(data.train.paths) & set(data.val.paths)
    assert set(data.train.paths) | set(data.val.paths) == set(load_split(tmp_path, "train").paths)
    assert data.test is None and data.train.classes == data.val.classes == tuple(CLASSES)
    first, single = data.lines
    assert f"{share or 0.2:g} of each class" in first and str(len(data.val)) in first
    assert "1 classes have one image" in single and "(dog)" in single


@pytest.mark.parametrize("share", [None, 0.1, 0.5])
@pytest.mark.parametrize("parts", [[""], ["train"], ["train", "test"], ["train", "val"]])
def test_the_images_that_are_trained_on_are_counted_beforehand(tmp_path, parts, share):
    for part in parts:
        fill(tmp_path / part)
    images = load_split(tmp_path, "train")
    share = None if "val" in parts else share
    expected = len(open_training(tmp_path, share).train)
    assert count_trained_on(tmp_path, images, share) == expected


def test_which_images_is_a_function_of_seed_and_names(tmp_path):
    held = [
        names(open_training(fill(tmp_path / place), None, seed).val)
        for place, seed in (("a", 0), ("b/c", 0), ("a", 1))
    ]
    assert held[0] == held[1] != held[2]


def test_the_order_is_random(tmp_path):
    """Not the first images, which are often of one kind: ranks of those held out are uniform."""
    images = load_split(fill(tmp_path, {"a": 4000}), "train")
    _, held = HeldOut.choose(images, 0.25, 0).split(images)
    places = np.sort(held.chosen) / 4000
    assert len(places) == 1000
    gap = np.abs(places - (np.arange(1000) + 0.5) / 1000).max()  # Kolmogorov and Smirnov
    assert gap < 1.63 / np.sqrt(1000) and len(set(keys(images, 0))) == 4000


def test_what_was_trained_on_is_never_tested_on(tmp_path):
    data = open_training(fill(tmp_path), None, 3)
    rule = HeldOut.from_dict(json.loads(json.dumps(data.held_out.to_dict())))
    trained, held = set(data.train.paths), set(data.val.paths)

    images, line = open_testing(tmp_path, None, rule)
    assert set(images.paths) == held and f"{len(held)} of 39 images" in line
    assert "held out of training" in line
    images, line = open_testing(tmp_path, "train", rule)
    assert set(images.paths) == trained and "trained on" in line

    for index in range(100, 140):  # images come, images go
        (tmp_path / "ant" / f"{index}.jpg").touch()
    (tmp_path / "bee" / "004.jpg").unlink()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "1.jpg").touch()
    later = set(open_testing(tmp_path, None, rule)[0].paths)
    assert not later & trained
    assert later >= {path for path in held if not path.endswith("bee/004.jpg")}


def test_another_folder_of_these_classes_is_tested_whole(tmp_path):
    rule = open_training(fill(tmp_path / "a")).held_out
    other = fill(tmp_path / "b", name="other{:03}.jpg")
    images, line = open_testing(other, None, rule)
    assert len(images) == 39 and line.startswith("testing on all 39 images")
    with pytest.raises(MissingSplit, match="no --split val; without the flag all"):
        open_testing(other, "val", rule)
    with pytest.raises(MissingSplit, match="no --split test"):
        open_testing(tmp_path / "a", "test", rule)


def test_images_for_testing_decide_nothing(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "test", {"ant": 4, "cat": 2})
    data = open_training(tmp_path)
    assert data.val.root == tmp_path / "train" and len(data.train) + len(data.val) == 39
    assert len(data.test) == 6 and data.test.classes == data.train.classes
    assert any("6 test images" in line and "decide nothing" in line for line in data.lines)
    assert not any("not used" in line for line in data.lines)
    assert open_testing(tmp_path)[0].root == tmp_path / "test"
    assert set(open_testing(tmp_path, "val", data.held_out)[0].paths) == set(data.val.paths)
    with pytest.raises(MissingSplit):
        open_testing(tmp_path, "val")


def test_images_for_validation_are_used(tmp_path):
    for split, name in (("training", "a{}.jpg"), ("Valid", "b{}.jpg"), ("test", "c{}.jpg")):
        fill(tmp_path / split, name=name)
    data = open_training(tmp_path)
    assert [part.root.name for part in (data.train, data.val, data.test)] == [
        *("training", "Valid", "test")
    ]
    assert data.held_out is None and len(data.train) == len(data.val) == 39
    for split, folder in (
        ("train", "training"),
        ("val", "Valid"),
        ("test", "test"),
        (None, "Valid"),
    ):
        images, line = open_testing(tmp_path, split)
        assert images.root.name == folder and f"39 images in {tmp_path / folder}" in line
    with pytest.raises(UsageError, match="--val-share 0.3: .* has images for validation"):
        open_training(tmp_path, 0.3)


def test_test_images_without_classes_are_not_used_and_that_is_told(tmp_path):
    """As in ImageNet."""
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.jpg").touch()
    data = open_training(tmp_path)
    assert data.test is None and len(data.val) == 39
    (line,) = data.lines[1:]
    assert line.startswith(f"data: not used: {tmp_path}/test: no class folders; expected one")
    fill(tmp_path / "test", {"eel": 2})
    (line,) = open_training(tmp_path).lines[1:]
    assert line.startswith("data: not used: ") and "class folders (eel) are not among" in line


def test_one_part_of_a_data_set_is_not_taken_for_the_whole(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    with pytest.raises(DataError, match=f"did you mean --data {tmp_path}"):
        open_training(tmp_path / "train")
    assert open_training(tmp_path / "train", 0.2).held_out is not None
    assert len(open_testing(tmp_path / "val")[0]) == 39


def test_too_few_images_to_hold_any_out(tmp_path):
    with pytest.raises(DataError, match="no class has two images"):
        open_training(fill(tmp_path, {"a": 1, "b": 1}))


def test_lists(tmp_path):
    rows = [f"{index}.jpg,{'ab'[index % 2]}" for index in range(40)]
    path = tmp_path / "l.csv"
    path.write_text("\n".join(rows))
    assert is_whole(path)
    data = open_training(path)
    assert counts(data.val) == {"a": 4, "b": 4} and len(data.train) == 32
    path.write_text("filename,class,subset,width\n" + ",train,9\n".join(rows) + ",test,9\n")
    assert not is_whole(path)
    data = open_training(path)
    assert len(data.train) + len(data.val) == 39 and len(data.test) == 1
    assert data.lines[-1] == (
        "list: path from 'filename', label from 'class', split from 'subset'; not read: 'width'"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"share": 1.5},
        {"share": "x"},
        {"seed": -1},
        {"limits": []},
        {"limits": {"a": 1 << 60}},
        {"limits": {"a": True}},
        {"more": 1},
    ],
)
def test_a_rule_that_makes_no_sense(change):
    with pytest.raises(ValueError, match="held_out"):
        HeldOut.from_dict({"share": 0.2, "seed": 0, "limits": {"a": 5}, **change})


def test_images_that_are_no_files_are_loaded_from_a_part_too(tmp_path):
    """CIFAR's are pixels in memory; crops of other images are decoded from their files."""
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(packed(cifar10_files()))
    train = open_training(path, 0.2).train
    assert 0 < len(train) < 30
    recipe = load_recipe("default")
    transform = TrainTransform(recipe.train_size, recipe.augment, recipe.preprocess)
    batch = BatchIndices(0, np.arange(len(train)), np.zeros(len(train), np.int64))
    loaded = {
        workers: next(iter(Loader(train, transform, "BGR", [batch], 3, workers))).images
        for workers in (0, 2)
    }
    assert np.array_equal(loaded[0], loaded[2]) and len(loaded[0]) == len(train)
    assert np.array_equal(train.read(0), train.whole.read(train.chosen[0]))
