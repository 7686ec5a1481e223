"""Which images int8 networks see, and how their answers are counted."""

from dataclasses import replace

import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.errors import DataError, UserError
from official.vision.classification.export.images import (
    Images,
    accuracy,
    calibration_images,
    load_both,
)
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.zoo.trained import Network, PretrainedConfig
from tests.conftest import CLASSES

PREPROCESS = Preprocess("RGB", (10, 20, 30), (2, 4, 8), resize=16, crop=16)


def network_for(preprocess=PREPROCESS, classes=CLASSES):
    return Network(
        None, PretrainedConfig(preprocess, classes, arch="resnet20_cifar", num_classes=3)
    )


def nothing(count):
    pass


def prepared(folder, index):
    """By hand: pictures are 20x20 and shrink to 16x16 by OpenCV's bilinear."""
    import cv2

    image = cv2.resize(cv2.imread(folder.paths[index]), (16, 16), interpolation=cv2.INTER_LINEAR)
    return ((image[:, :, ::-1] - [10, 20, 30]) / [2, 4, 8]).transpose(2, 0, 1)


def test_calibration_draws_without_repetition_and_always_the_same(tiny_images):
    folder = load_split(tiny_images, "train")
    images, seen = Images(network_for(), workers=2), []
    batches = list(calibration_images(images, folder, 10, seen.append))
    again = list(calibration_images(images, folder, 10, nothing))
    found = np.concatenate(batches)
    assert sum(seen) == len(found) == 10
    assert found.dtype == np.float32
    assert np.array_equal(found, np.concatenate(again))
    every = np.stack([prepared(folder, index) for index in range(len(folder))])
    distances = np.abs(found[:, None] - every[None]).max((2, 3, 4))
    assert (distances.min(1) < 1e-4).all()
    chosen = distances.argmin(1)
    assert len(set(chosen)) == 10
    assert len(set(folder.labels[chosen])) == 3  # not the first ones, which are of one class


def test_all_images_where_more_are_asked_for(tiny_images):
    folder = load_split(tiny_images, "train")
    batches = calibration_images(Images(network_for(), 0), folder, 1000, nothing)
    assert sum(map(len, batches)) == len(folder) == 24


def test_accuracy_counts_every_image_once_for_each_runner(tiny_images):
    network = network_for()
    _, folder = load_both(str(tiny_images), network)
    seen = []

    def by_colour(images):
        """The brightest channel; images are RGB, classes blue, green, red."""
        colours = images * np.reshape([2, 4, 8], (3, 1, 1)) + np.reshape([10, 20, 30], (3, 1, 1))
        return colours.mean((2, 3))[:, ::-1]

    def blue(images):
        return np.tile(np.float32([1, 0, 0]), (len(images), 1))

    good, poor = accuracy(Images(network, 2), folder, (by_colour, blue), seen.append)
    assert (good.top1_correct, good.total) == (15, 15)
    assert (poor.top1_correct, poor.top5_correct, poor.total) == (5, 15, 15)
    assert sum(seen) == 15


def test_labels_follow_the_networks_classes(tiny_images):
    _, folder = load_both(str(tiny_images), network_for(classes=("red", "green", "blue")))
    assert folder.labels.tolist() == [2] * 5 + [1] * 5 + [0] * 5


def test_outputs_that_are_no_numbers_are_refused(tiny_images):
    network = network_for()
    _, folder = load_both(str(tiny_images), network)
    with pytest.raises(UserError, match="not finite"):
        accuracy(
            Images(network, 0), folder, (lambda x: np.full((len(x), 3), np.nan),), lambda n: None
        )


def test_images_of_another_size_than_the_file_takes(tiny_images):
    network = network_for(replace(PREPROCESS, resize=None, crop=None))  # made for 32 pixels
    folder = load_split(tiny_images, "val")
    with pytest.raises(DataError, match=r"0.png: \(20, 20\) pixels where .* takes \(32, 32\)"):
        accuracy(Images(network, 0), folder, (), lambda n: None)
