import itertools
import random

import cv2
import numpy as np
import pytest

from official.vision.classification.data.augment import (
    Augment,
    TrainTransform,
    color_jitter,
    random_flip,
    random_padded_crop,
    random_resized_crop,
)
from official.vision.classification.data.transforms import to_network_layout
from official.vision.classification.errors import DataError
from official.vision.classification.preprocess import Preprocess

CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
GREY = np.array([0.114, 0.587, 0.299])  # ITU-R BT.601, BGR


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def coordinates(height, width):
    """An image whose pixels tell where they are: column, row, and the high bits of both."""
    row, column = np.mgrid[:height, :width]
    high = (column >> 8) | (row >> 8 << 4)
    return np.dstack([column & 255, row & 255, high]).astype(np.uint8)


def where(pixels):
    """(row, column) of pixels of ``coordinates``."""
    column, row, high = np.moveaxis(pixels.astype(int), -1, 0)
    return row + (high >> 4 << 8), column + ((high & 15) << 8)


def deviation(samples, low, high):
    """Kolmogorov-Smirnov distance from the uniform distribution."""
    samples = (np.sort(samples) - low) / (high - low)
    steps = np.arange(len(samples) + 1) / len(samples)
    return max((steps[1:] - samples).max(), (samples - steps[:-1]).max())


# The random resized crop


def boxes(height, width, count, **options):
    """(left, top, width, height) of many crops, read off the pixels that came out."""
    image, size = coordinates(height, width), max(height, width)
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        crop = random_resized_crop(image, size, rng, interpolation="nearest", **options)
        assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
        (top, bottom), (left, right) = where(crop[[0, -1], [0, -1]])
        found.append((left, top, right - left + 1, bottom - top + 1))
    return np.array(found).T


def test_area_and_aspect_of_a_resized_crop():
    """Areas that fit in any aspect are not thinned out by misses: both are exactly uniform."""
    _, _, width, height = boxes(240, 240, 1500, area=(0.08, 0.7))
    share, aspect = width * height / 240**2, np.log(width / height)
    assert 0.078 < share.min() < 0.085 and 0.69 < share.max() < 0.705
    assert deviation(share, 0.08, 0.7) < 0.05
    bound = np.log(4 / 3)
    assert -bound - 0.02 < aspect.min() < -bound + 0.01
    assert bound - 0.01 < aspect.max() < bound + 0.02
    assert deviation(aspect, -bound, bound) < 0.05
    assert abs(np.corrcoef(share, aspect)[0, 1]) < 0.1


def test_place_of_a_resized_crop():
    left, top, width, height = boxes(150, 230, 1500, area=(0.08, 0.4))
    room_x, room_y = 230 - width, 150 - height
    assert (left >= 0).all() and (top >= 0).all()
    assert (left <= room_x).all() and (top <= room_y).all()
    assert (left == 0).any() and (top == 0).any()
    assert (left == room_x).any() and (top == room_y).any()
    assert deviation((left + 0.5) / (room_x + 1), 0, 1) < 0.05
    assert deviation((top + 0.5) / (room_y + 1), 0, 1) < 0.05
    assert abs(np.corrcoef(left / (room_x + 1), top / (room_y + 1))[0, 1]) < 0.1


def test_default_area_and_aspect_of_a_resized_crop():
    left, top, width, height = boxes(200, 260, 800)
    share = width * height / (200 * 260)
    assert 0.078 < share.min() < 0.09 and 0.9 < share.max() <= 1
    assert 0.73 < (width / height).min() < 0.78 and 1.28 < (width / height).max() < 1.36
    assert (left + width <= 260).all() and (top + height <= 200).all()


def test_aspect_bounds_are_obeyed():
    _, _, width, height = boxes(200, 200, 200, area=(0.1, 0.3), aspect=(1.5, 2.0))
    assert ((width / height > 1.45) & (width / height < 2.06)).all()


@pytest.mark.parametrize(("height", "width"), [(1000, 10), (10, 1000), (7, 500), (500, 7)])
def test_an_extreme_image_gives_its_largest_central_part(height, width):
    """Half of it never fits within the aspects, so every crop is the one for ten misses."""
    left, top, box_width, box_height = boxes(height, width, 5, area=(0.5, 1.0))
    assert {len(set(values)) for values in (left, top, box_width, box_height)} == {1}
    short, long_ = sorted((box_width[0], box_height[0]))
    assert short == min(height, width)
    assert abs(long_ - short * 4 / 3) <= 0.5
    assert (box_width[0] < box_height[0]) == (width < height)
    assert abs(left[0] + box_width[0] / 2 - width / 2) <= 0.5
    assert abs(top[0] + box_height[0] / 2 - height / 2) <= 0.5


def test_the_whole_of_an_image_whose_aspect_is_allowed():
    for height, width in [(100, 100), (90, 110), (110, 90)]:
        left, top, box_width, box_height = boxes(height, width, 5, area=(1.0, 1.0))
        covered = box_width * box_height / (height * width)
        assert (covered > 0.98).all()
        assert (left + box_width <= width).all() and (top + box_height <= height).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 3)])
def test_tiny_images_can_be_cropped(height, width):
    for seed in range(30):
        crop = random_resized_crop(noise(height, width), 8, np.random.default_rng(seed))
        assert crop.shape == (8, 8, 3)


@pytest.mark.parametrize("interpolation", CV2)
def test_a_crop_is_scaled_as_told(interpolation):
    image = noise(120, 90)
    lefts, tops, widths, heights = boxes(120, 90, 8)
    for seed, (left, top, width, height) in enumerate(zip(lefts, tops, widths, heights)):
        crop = random_resized_crop(
            image, 32, np.random.default_rng(seed), interpolation=interpolation
        )
        part = np.ascontiguousarray(image[top : top + height, left : left + width])
        expected = cv2.resize(part, (32, 32), interpolation=CV2[interpolation])
        np.testing.assert_array_equal(crop, expected)


# The padded crop and the mirror


def test_a_padded_crop_is_each_part_of_the_padded_image_equally_often():
    image = noise(9, 8)
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    parts = {}
    for top, left in itertools.product(range(6), range(5)):
        parts[padded[top : top + 8, left : left + 8].tobytes()] = 0
    assert len(parts) == 30
    for seed in range(3000):
        crop = random_padded_crop(image, 8, 2, np.random.default_rng(seed))
        assert crop.shape == (8, 8, 3)
        parts[crop.tobytes()] += 1
    counts = np.array(list(parts.values()))
    assert ((counts - 100) ** 2 / 100).sum() < 60  # chi-square with 29 degrees of freedom


def test_a_padded_crop_without_padding():
    image = noise(8, 8)
    crop = random_padded_crop(image, 8, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, image)
    with pytest.raises(DataError, match="too small for a crop of 13"):
        random_padded_crop(noise(8, 9), 13, 2, np.random.default_rng(0))


def test_flip_mirrors_half_of_the_images():
    image, mirrored = noise(5, 7), 0
    for seed in range(1000):
        found = random_flip(image, np.random.default_rng(seed))
        flipped = (found == image[:, ::-1]).all()
        assert flipped or (found == image).all()
        mirrored += flipped
    assert 430 < mirrored < 570


# The colour jitter


class Noted:
    """A generator that remembers what it gave."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.bounds, self.factors = [], []

    def permutation(self, count):
        return self.rng.permutation(count)

    def uniform(self, low, high):
        self.bounds.append((low, high))
        self.factors.append(self.rng.uniform(low, high))
        return self.factors[-1]


def brightness(image, factor):
    return image * factor


def contrast(image, factor):
    return image * factor + (image @ GREY).mean() * (1 - factor)


def saturation(image, factor):
    return image * factor + (image @ GREY)[:, :, None] * (1 - factor)


def as_bytes(values):
    return np.floor(np.clip(values, 0, 255) + 1e-6)


def test_jitter_against_float64():
    """The image is one of the six orders of the three changes, and over time all six."""
    image, orders = noise(30, 40), {}
    for seed in range(60):
        rng = Noted(seed)
        found = color_jitter(image, 0.8, rng)
        assert found.dtype == np.uint8 and found.shape == image.shape
        assert rng.bounds == [(pytest.approx(0.2), pytest.approx(1.8))] * 3
        errors = {}
        for order in itertools.permutations([brightness, contrast, saturation]):
            expected = image.astype(np.float64)
            for change, factor in zip(order, rng.factors):
                expected = as_bytes(change(expected, factor))
            errors[order] = np.abs(found - expected).max()
        best = min(errors, key=errors.get)
        assert errors[best] <= 5  # each change rounds down, and the grey it uses is rounded
        if sorted(errors.values())[1] > 10:
            orders[best] = orders.get(best, 0) + 1
    assert len(orders) == 6


def test_a_factor_of_one_changes_nothing():
    image = noise(30, 40)
    np.testing.assert_array_equal(color_jitter(image, 0.0, np.random.default_rng(0)), image)


def recovered(strength, count):
    """Brightness, contrast and saturation, measured on grey patches and a coloured one.

    Saturation leaves grey as it is, contrast keeps the mean grey, brightness scales everything.
    """
    patches = np.array([[60, 60, 60], [160, 160, 160], [60, 108, 160]], np.uint8)
    image = patches[None].repeat(30, 0)
    grey = image[0].astype(float) @ GREY
    factors = []
    for seed in range(count):
        dark, light, coloured = color_jitter(image, strength, np.random.default_rng(seed))[0] + 0.5
        mean = np.mean([dark[0], light[0], coloured @ GREY])
        spread = (light[0] - dark[0]) / 100
        colour = (coloured[2] - coloured[0]) / 100
        bright = mean / grey.mean()
        factors.append((bright, spread / bright, colour / spread))
    return np.array(factors).T


def test_jitter_draws_its_three_factors_uniformly_and_apart():
    factors = recovered(0.3, 1000)
    for values in factors:
        assert 0.67 < values.min() < 0.71 and 1.29 < values.max() < 1.33
        assert deviation(values, 0.7, 1.3) < 0.05
    assert np.abs(np.corrcoef(factors) - np.eye(3)).max() < 0.12


def test_jitter_of_great_strength_stays_an_image():
    image = noise(20, 20)
    for seed in range(50):
        rng = Noted(seed)
        assert color_jitter(image, 1.5, rng).dtype == np.uint8
        assert rng.bounds == [(0.0, 2.5)] * 3  # no negative factors


# What all have in common

AS_IT_IS = Preprocess(resize=None, crop=None)
RANDOM = {
    "resized crop": lambda image, rng: random_resized_crop(image, 24, rng),
    "padded crop": lambda image, rng: random_padded_crop(image, 24, 4, rng),
    "flip": random_flip,
    "jitter": lambda image, rng: color_jitter(image, 0.4, rng),
    "training": TrainTransform(24, Augment(jitter=0.4)),
    "small training": TrainTransform(24, Augment(crop="padded", padding=4, jitter=0.4), AS_IT_IS),
}


@pytest.mark.parametrize("name", RANDOM)
def test_only_the_generator_decides(name):
    image = noise(40, 50)
    image.flags.writeable = False  # and the image is left as it is
    first = []
    for seed in range(8):
        first.append(RANDOM[name](image, np.random.default_rng(seed)).copy())
    for seed, expected in enumerate(first):
        random.seed(seed)
        np.random.seed(seed)
        cv2.setRNGSeed(seed)
        np.testing.assert_array_equal(RANDOM[name](image, np.random.default_rng(seed)), expected)
    assert len({found.tobytes() for found in first}) == (2 if name == "flip" else 8)


def test_training_puts_the_steps_together():
    image = coordinates(40, 50)
    plain = TrainTransform(50, Augment(interpolation="nearest", area=(0.2, 0.5)))
    mirrored = 0
    for seed in range(40):
        found = plain(image, np.random.default_rng(seed))
        assert found.shape == (50, 50, 3)
        (top, bottom), (left, right) = where(found[[0, -1], [0, -1]])
        mirrored += right < left
        share = (bottom - top + 1) * (abs(right - left) + 1) / (40 * 50)
        assert 0.18 < share < 0.52
    assert 8 < mirrored < 32
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = TrainTransform(44, Augment(crop="padded", padding=3, flip=False), AS_IT_IS)(
            image, rng
        )
        row, column = where(found[6:-6, 6:-6])
        assert (np.diff(row, axis=0) == 1).all() and (np.diff(column, axis=1) == 1).all()
    grey = np.full((40, 50, 3), 100, np.uint8)
    levels = {
        int(TrainTransform(32, Augment(jitter=0.4))(grey, np.random.default_rng(seed)).max())
        for seed in range(40)
    }
    assert min(levels) < 70 and max(levels) > 130


@pytest.mark.parametrize("interpolation", CV2)
def test_training_scales_as_told(interpolation):
    image, area = noise(40, 50), (0.2, 0.5)
    transform = TrainTransform(24, Augment(area=area, flip=False, interpolation=interpolation))
    for seed in range(5):
        found = transform(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        expected = random_resized_crop(image, 24, rng, area, interpolation=interpolation)
        np.testing.assert_array_equal(found, expected)


def test_network_layout():
    image = noise(5, 7)
    for order, channels in (("BGR", (0, 1, 2)), ("RGB", (2, 1, 0))):
        found = to_network_layout(image, order)
        assert found.shape == (3, 5, 7) and found.dtype == np.uint8
        assert found.transpose(1, 2, 0).flags.c_contiguous
        for plane, channel in zip(found, channels):
            np.testing.assert_array_equal(plane, image[:, :, channel])
