import math

import cv2
import numpy as np
import pytest
from PIL import Image

from official.vision.classification.data.augment import (
    Augment,
    TrainTransform,
    color_jitter,
    random_flip,
    random_padded_crop,
    random_resized_crop,
)
from official.vision.classification.data.augmentation.erasing import random_erasing
from official.vision.classification.data.augmentation.rand_augment import RandAugment
from official.vision.classification.data.sampler import sample_generator
from official.vision.classification.data.transforms import resize
from official.vision.classification.preprocess import PRESETS, Preprocess

CUB = Preprocess(resize=[60, 50], crop=44)
AS_IT_IS = Preprocess(resize=None, crop=None)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def drawn_box(rng, height, width, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3)):
    """The crop that a generator's next numbers stand for: area, aspect, left, top, as published."""
    for _ in range(10):
        pixels = rng.uniform(*area) * height * width
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        box_width = round(math.sqrt(pixels * ratio))
        box_height = round(math.sqrt(pixels / ratio))
        if box_width <= width and box_height <= height:
            left = rng.integers(0, width - box_width + 1)
            top = rng.integers(0, height - box_height + 1)
            return slice(top, top + box_height), slice(left, left + box_width)
    raise AssertionError("ten misses")


def resampling(old, new, kernel, support):
    """(new, old) weights of antialiased resampling: the kernel widens as an image shrinks."""
    scale = old / new
    wide = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    distance = (np.arange(old)[None] + 0.5 - centres[:, None]) / wide
    weights = np.where(np.abs(distance) < support, kernel(np.abs(distance)), 0.0)
    return weights / weights.sum(1, keepdims=True)


def triangle(x):
    return 1 - x


def cubic(x, a=-0.5):  # Keys' kernel with Pillow's parameter
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return np.where(x < 1, near, far)


KERNELS = {"bilinear": (triangle, 1), "bicubic": (cubic, 2)}


# The pixels of the simplest recipes


@pytest.mark.parametrize("key", [(0, 0, 0), (7, 3, 11), (123456, 89, 1281166)])
def test_a_resized_crop_and_a_flip(key):
    """Runs go on as they began: these numbers, in this order, from this generator."""
    image = noise(90, 120)
    found = TrainTransform(32)(image, sample_generator(*key))
    seed, epoch, index = key
    rng = np.random.default_rng((seed, 1, epoch, index))
    expected = cv2.resize(np.ascontiguousarray(image[drawn_box(rng, 90, 120)]), (32, 32))
    expected = expected[:, ::-1] if rng.random() < 0.5 else expected
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("index", range(6))
def test_a_padded_crop_a_flip_and_a_jitter(index):
    image = noise(32, 32)
    transform = TrainTransform(32, Augment(crop="padded", padding=4, jitter=0.4), AS_IT_IS)
    found = transform(image, sample_generator(5, 2, index))
    rng = np.random.default_rng((5, 1, 2, index))
    top, left = rng.integers(0, 9), rng.integers(0, 9)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))[top : top + 32, left : left + 32]
    expected = np.ascontiguousarray(padded[:, ::-1] if rng.random() < 0.5 else padded)
    np.testing.assert_array_equal(found, color_jitter(expected, 0.4, rng))


# Pillow's resized crop, and aspects


@pytest.mark.parametrize("area", [(0.5, 1.0), (0.05, 0.1)])
@pytest.mark.parametrize("interpolation", KERNELS)
def test_pillow_scales_with_all_pixels(interpolation, area):
    """Against its definition in float64; its own arithmetic rounds after each direction."""
    image = noise(90, 120)
    kernel = KERNELS[interpolation]
    augment = Augment(area=area, flip=False, interpolation=interpolation, library="pillow")
    transform = TrainTransform(40, augment)
    for index in range(8):
        found = transform(image, sample_generator(0, 0, index))
        part = image[drawn_box(sample_generator(0, 0, index), 90, 120, area)].astype(float)
        across = resampling(part.shape[1], 40, *kernel)
        down = resampling(part.shape[0], 40, *kernel)
        rounded = np.rint(np.clip(np.einsum("ij,hjc->hic", across, part), 0, 255))
        expected = np.clip(np.einsum("ij,jwc->iwc", down, rounded), 0, 255)
        assert found.shape == (40, 40, 3) and found.dtype == np.uint8
        assert np.abs(found - expected).max() < 1.6


def test_libraries_cut_out_the_same_box():
    image = cv2.GaussianBlur(noise(90, 120), (0, 0), 4)
    for seed in range(10):
        one, other = (
            random_resized_crop(
                image, 48, np.random.default_rng(seed), interpolation="bicubic", library=library
            )
            for library in ("cv2", "pillow")
        )
        assert np.abs(one.astype(int) - other).mean() < 2


def test_aspect_is_obeyed():
    image = noise(100, 100)
    transform = TrainTransform(24, Augment(area=(0.2, 0.3), flip=False, aspect=(1.9, 2.1)))
    for index in range(8):
        found = transform(image, sample_generator(0, 0, index))
        rows, columns = drawn_box(sample_generator(0, 0, index), 100, 100, (0.2, 0.3), (1.9, 2.1))
        assert 1.8 < (columns.stop - columns.start) / (rows.stop - rows.start) < 2.2
        part = np.ascontiguousarray(image[rows, columns])
        np.testing.assert_array_equal(found, cv2.resize(part, (24, 24)))


# The random crop of a resized image


def test_a_random_crop_after_a_resize():
    """Every square of the resized image, and each as often."""
    image = noise(80, 100)
    resized = cv2.resize(image, (50, 60))
    transform = TrainTransform(44, Augment(crop="random", flip=False), CUB)
    places = {}
    for top in range(17):
        for left in range(7):
            places[resized[top : top + 44, left : left + 44].tobytes()] = 0
    for seed in range(119 * 20):
        places[transform(image, np.random.default_rng(seed)).tobytes()] += 1
    counts = np.array(list(places.values()))
    assert len(counts) == 119 and ((counts - 20) ** 2 / 20).sum() < 175  # chi-square, 118 degrees


# All of it


def test_steps_in_their_order():
    image = noise(60, 80)
    image.flags.writeable = False
    augment = RandAugment(ops=3, probability=0.9)
    transform = TrainTransform(48, Augment(jitter=0.4, rand_augment=augment, erasing=0.7))
    for index in range(20):
        rng = sample_generator(1, 2, index)
        expected = random_flip(random_resized_crop(image, 48, rng), rng)
        expected = augment(color_jitter(expected, 0.4, rng), rng)
        expected = random_erasing(expected, 0.7, rng)
        found = transform(image, sample_generator(1, 2, index))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("size", [8, 33])
def test_sizes(size):
    ops = RandAugment(ops=4, probability=1.0)
    for crop in ({"library": "pillow"}, {"crop": "padded", "padding": 9}, {"crop": "random"}):
        transform = TrainTransform(size, Augment(rand_augment=ops, erasing=1.0, **crop), CUB)
        for seed in range(20):
            found = transform(noise(40, 30), np.random.default_rng(seed))
            assert found.shape == (size, size, 3) and found.dtype == np.uint8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_crop_is_scaled_as_a_test_scales(interpolation):
    """By Pillow itself where the weights' own images were: OpenCV's would be other pixels."""
    image = noise(600, 800)
    stated = PRESETS["torchvision"].override({"interpolation": interpolation})
    found = TrainTransform(64, Augment(flip=False), stated)(image, np.random.default_rng(5))
    part = image[drawn_box(np.random.default_rng(5), 600, 800)]
    resample = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[interpolation]
    expected = np.asarray(Image.fromarray(part).resize((64, 64), resample))
    np.testing.assert_array_equal(found, expected)
    mine = Augment(flip=False, interpolation="area", library="cv2")
    found = TrainTransform(64, mine, stated)(image, np.random.default_rng(5))
    np.testing.assert_array_equal(found, cv2.resize(part, (64, 64), interpolation=cv2.INTER_AREA))


# Every key of a recipe's section


def test_without_a_section():
    assert TrainTransform(224) == TrainTransform(224, Augment(), Preprocess())


def test_every_key_counts():
    """All of them other than their defaults, in the order of the section."""
    image = noise(60, 80)
    operations = {
        "ops": 3,
        "magnitude": 6,
        "magnitude_std": 0.2,
        "probability": 0.9,
        "levels": 12,
        "fill": (1, 2, 3),
        "interpolation": "bilinear",
    }
    section = Augment(
        crop="resized",
        area=(0.3, 0.9),
        aspect=(0.5, 2.0),
        flip=False,
        jitter=0.3,
        interpolation="bicubic",
        library="pillow",
        rand_augment=operations,
        erasing=0.25,
    )
    transform = TrainTransform(40, section)
    erased = 0
    for index in range(20):
        rng = sample_generator(1, 2, index)
        expected = random_resized_crop(image, 40, rng, (0.3, 0.9), (0.5, 2.0), "bicubic", "pillow")
        expected = color_jitter(expected, 0.3, rng)
        before = expected = RandAugment(**operations)(expected, rng)
        expected = random_erasing(expected, 0.25, rng)
        erased += before is not expected
        found = transform(image, sample_generator(1, 2, index))
        np.testing.assert_array_equal(found, expected)
    assert 0 < erased < 12


@pytest.mark.parametrize("padding", [0, 3])
def test_other_crops(padding):
    image = noise(60, 50)
    for index in range(5):
        rng = sample_generator(1, 2, index)
        expected = random_flip(random_padded_crop(resize(image, CUB), 32, padding, rng), rng)
        found = TrainTransform(32, Augment(crop="padded", padding=padding), CUB)(
            image, sample_generator(1, 2, index)
        )
        np.testing.assert_array_equal(found, expected)
        rng = sample_generator(1, 2, index)
        expected = random_flip(random_padded_crop(resize(image, CUB), 44, 0, rng), rng)
        found = TrainTransform(44, Augment(crop="random"), CUB)(
            image, sample_generator(1, 2, index)
        )
        np.testing.assert_array_equal(found, expected)
