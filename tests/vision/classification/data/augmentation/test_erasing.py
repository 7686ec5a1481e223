import numpy as np
import pytest

from official.vision.classification.data.augment import Augment, TrainTransform
from official.vision.classification.data.augmentation.erasing import random_erasing
from official.vision.classification.data.transforms import to_network_layout
from official.vision.classification.preprocess import Preprocess


def boxes(height, width, count, **options):
    """(top, left, height, width) of what was erased from black images, one per seed."""
    black = np.zeros((height, width, 3), np.uint8)
    black.flags.writeable = False
    found = []
    for seed in range(count):
        erased = random_erasing(black, 1.0, np.random.default_rng(seed), **options)
        assert erased.shape == black.shape and erased.dtype == np.uint8
        rows, columns = np.nonzero(erased.any(2))
        top, left = rows.min(), columns.min()
        found.append((top, left, rows.max() - top + 1, columns.max() - left + 1))
    return np.array(found).T


def deviation(samples, low, high):
    """Kolmogorov-Smirnov distance from the uniform distribution."""
    samples = (np.sort(samples) - low) / (high - low)
    steps = np.arange(len(samples) + 1) / len(samples)
    return max((steps[1:] - samples).max(), (samples - steps[:-1]).max())


def test_probability():
    image = np.zeros((16, 16, 3), np.uint8)
    for probability in (0.0, 0.25, 1.0):
        erased = [
            random_erasing(image, probability, np.random.default_rng(seed)) is not image
            for seed in range(1000)
        ]
        assert abs(np.mean(erased) - probability) < 0.05


def test_area_and_aspect():
    """Of areas that fit in any aspect, so that none is drawn again."""
    _, _, height, width = boxes(300, 300, 1000, area=(0.02, 0.29))
    share, ratio = height * width / 300**2, np.log(height / width)
    assert deviation(share, 0.02, 0.29) < 0.05
    assert deviation(ratio, np.log(0.3), -np.log(0.3)) < 0.05
    assert abs(np.corrcoef(share, ratio)[0, 1]) < 0.1


def test_the_papers_limits_are_the_default():
    _, _, height, width = boxes(200, 200, 1000)
    share, ratio = height * width / 200**2, height / width
    assert 0.018 < share.min() < 0.025 and 0.38 < share.max() < 0.405
    assert 0.28 < ratio.min() < 0.32 and 3.1 < ratio.max() < 3.55


def test_place():
    top, left, height, width = boxes(90, 120, 1500, area=(0.05, 0.25))
    assert ((top + height <= 90) & (left + width <= 120)).all()
    assert deviation((top + 0.5) / (90 - height + 1), 0, 1) < 0.05
    assert deviation((left + 0.5) / (120 - width + 1), 0, 1) < 0.05


def test_all_of_the_rectangle_is_noise_and_nothing_else():
    image = np.random.default_rng(0).integers(0, 256, (120, 140, 3), np.uint8)
    kept = image.copy()
    for seed in range(20):
        erased = random_erasing(image, 1.0, np.random.default_rng(seed), (0.3, 0.3), (1.0, 1.0))
        rows, columns = np.nonzero((erased != image).any(2))
        part = erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert part.shape == (71, 71, 3)  # the square root of 0.3 * 120 * 140
        assert ((erased != image).any(2).sum() / part[..., 0].size) > 0.999
        counts = np.bincount(part.reshape(-1), minlength=256)
        expected = part.size / 256
        assert ((counts - expected) ** 2 / expected).sum() < 370  # chi-square, 255 degrees
    np.testing.assert_array_equal(image, kept)


def test_only_the_generator_decides():
    image = np.zeros((30, 30, 3), np.uint8)
    first = random_erasing(image, 1.0, np.random.default_rng(3))
    np.random.seed(1)
    np.testing.assert_array_equal(random_erasing(image, 1.0, np.random.default_rng(3)), first)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 500), (500, 1), (2, 3)])
def test_images_that_no_rectangle_fits_are_left(height, width):
    image = np.zeros((height, width, 3), np.uint8)
    for seed in range(50):
        assert random_erasing(image, 1.0, np.random.default_rng(seed)).shape == image.shape
    for aspect in (1e6, 1e-6):
        rng = np.random.default_rng(0)
        assert random_erasing(image, 1.0, rng, (0.9, 0.9), (aspect, aspect)) is image


def test_the_whole_image_may_go():
    image = np.zeros((40, 40, 3), np.uint8)
    erased = random_erasing(image, 1.0, np.random.default_rng(0), (1.0, 1.0), (1.0, 1.0))
    assert erased.any(2).all()


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_mean_is_nothing_to_the_network(order):
    """torchvision erases after it has normalised, with 0."""
    mean = (123.675, 116.28, 103.53) if order == "RGB" else (103.53, 116.28, 123.675)
    preprocess = Preprocess(order, mean, (58.395, 57.12, 57.375), resize=40, crop=32)
    black = np.zeros((40, 40, 3), np.uint8)
    augment = Augment(flip=False, erasing=1, erasing_fill="mean", erasing_area=(0.3, 0.33))
    for seed in range(20):
        made = TrainTransform(32, augment, preprocess)(black, np.random.default_rng(seed))
        erased = made.any(2)
        assert 0.25 < erased.mean() < 0.36
        seen = to_network_layout(made, order).astype(float)[:, erased]
        normal = (seen - np.array(mean)[:, None]) / np.array(preprocess.std)[:, None]
        assert np.abs(normal).max() < 0.5 / 57  # half a level
        assert np.unique(seen, axis=1).shape == (3, 1)
