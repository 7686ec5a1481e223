import functools
import math

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from official.vision.classification.data.augmentation.rand_augment import OPERATIONS, RandAugment

GREY = np.array([0.114, 0.587, 0.299])  # ITU-R BT.601, BGR
FILL = (104, 116, 124)

# MMPreTrain's "timm_increasing": value at magnitude 0, at full magnitude, and whether signed.
POLICY = {
    "auto_contrast": None,
    "equalize": None,
    "invert": None,
    "rotate": (0, 30, True),
    "posterize": (4, 0, False),
    "solarize": (256, 0, False),
    "solarize_add": (0, 110, False),
    "color": (0, 0.9, True),
    "contrast": (0, 0.9, True),
    "brightness": (0, 0.9, True),
    "sharpness": (0, 0.9, True),
    "shear_x": (0, 0.3, True),
    "shear_y": (0, 0.3, True),
    "translate_x": (0, 0.45, True),
    "translate_y": (0, 0.45, True),
}
FACTORS = [-0.8913, -0.6307, -0.1019, 0.0, 0.2011, 0.6307, 0.8913]  # few whole products


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def pictures():
    """Images with full, narrow, lopsided and single-valued histograms."""
    smooth = cv2.GaussianBlur(noise(61, 47), (0, 0), 3)
    flat = np.full((20, 30, 3), (10, 200, 90), np.uint8)
    dark = (noise(40, 40, 1) // 7).astype(np.uint8)
    two = np.where(noise(33, 25, 2) > 250, 255, 3).astype(np.uint8)
    return [noise(64, 48), smooth, smooth // 3 + 90, flat, dark, two, noise(1, 1), noise(1, 17)]


def apply(image, name, value=0.0, **options):
    image = image.copy()
    image.flags.writeable = False
    found = RandAugment(**options).apply(image, name, value)
    assert found.dtype == np.uint8 and found.shape == image.shape
    return found


def pillow(image, change, *arguments):
    """A change by Pillow, which knows RGB only."""
    changed = change(Image.fromarray(image[:, :, ::-1].copy()), *arguments)
    return np.asarray(changed)[:, :, ::-1]


def enhance(kind):
    return lambda image, factor: kind(image).enhance(factor)


def close(found, expected, most, share):
    """No byte differs by more than ``most``, and no larger share of them than ``share`` at all."""
    difference = np.abs(found.astype(float) - expected)
    assert difference.max() <= most
    assert (difference > 0).mean() <= share


def bytes_of(values):
    return np.floor(np.clip(values, 0, 255) + 1e-9)


def test_the_policy():
    assert list(OPERATIONS) == list(POLICY)
    for name, expected in POLICY.items():
        assert (None if OPERATIONS[name] is None else tuple(OPERATIONS[name])) == expected


# Operations that Pillow has, with Pillow's definition


@pytest.mark.parametrize("image", pictures())
def test_histograms_are_changed_as_pillow_does(image):
    expected = pillow(image, ImageOps.autocontrast)
    np.testing.assert_array_equal(apply(image, "auto_contrast"), expected)
    np.testing.assert_array_equal(apply(image, "equalize"), pillow(image, ImageOps.equalize))
    np.testing.assert_array_equal(apply(image, "invert"), pillow(image, ImageOps.invert))


@pytest.mark.parametrize("bits", [4, 3.2, 3, 2.01, 1, 0.4])
def test_posterize(bits):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = pillow(image, ImageOps.posterize, math.ceil(bits))
    np.testing.assert_array_equal(apply(image, "posterize", bits), expected)


def test_posterize_to_no_bits_is_black():
    assert not apply(noise(9, 9), "posterize", 0.0).any()


@pytest.mark.parametrize("threshold", [256, 255, 200.5, 128, 76.8, 1, 0])
def test_solarize(threshold):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = pillow(image, ImageOps.solarize, threshold)
    np.testing.assert_array_equal(apply(image, "solarize", threshold), expected)


@pytest.mark.parametrize("value", [0, 0.9, 77, 77.6, 110])
def test_solarize_add_raises_the_dark_half(value):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    expected = [min(level + int(value), 255) if level < 128 else level for level in range(256)]
    assert apply(image, "solarize_add", value)[..., 1].reshape(-1).tolist() == expected


def test_solarize_add_stops_at_white():
    image = np.full((4, 4, 3), 127, np.uint8)
    assert (apply(image, "solarize_add", 200) == 255).all()


@pytest.mark.parametrize("value", FACTORS)
@pytest.mark.parametrize("image", pictures())
def test_brightness(image, value):
    expected = pillow(image, enhance(ImageEnhance.Brightness), 1 + value)
    close(apply(image, "brightness", value), expected, 1, 0.01)
    close(apply(image, "brightness", value), bytes_of(image * (1 + value)), 0, 0)


@pytest.mark.parametrize("value", FACTORS)
@pytest.mark.parametrize("image", pictures())
def test_contrast(image, value):
    """About the mean grey, which is a whole number; Pillow's may round to the next one."""
    mean = round(np.rint(image @ GREY).mean())
    expected = bytes_of(mean + (image.astype(float) - mean) * (1 + value))
    found = apply(image, "contrast", value)
    close(found, expected, 0, 0)
    close(found, pillow(image, enhance(ImageEnhance.Contrast), 1 + value), 1, 1)


@pytest.mark.parametrize("value", FACTORS)
@pytest.mark.parametrize("image", pictures())
def test_color(image, value):
    """Rounded, where Pillow cuts off."""
    grey = np.rint(image @ GREY)[:, :, None]
    expected = np.rint(np.clip(grey + (image - grey) * (1 + value), 0, 255))
    found = apply(image, "color", value)
    close(found, expected, 1, 0.02)  # halves, and the grey of OpenCV's whole-number arithmetic
    close(found, pillow(image, enhance(ImageEnhance.Color), 1 + value), 2, 1)


@pytest.mark.parametrize("value", FACTORS)
@pytest.mark.parametrize("image", [picture for picture in pictures() if min(picture.shape) > 2])
def test_sharpness(image, value):
    """Pillow leaves the outermost pixels alone; MMPreTrain mirrors the image there."""
    found = apply(image, "sharpness", value)
    expected = pillow(image, enhance(ImageEnhance.Sharpness), 1 + value)
    close(found[1:-1, 1:-1], expected[1:-1, 1:-1], 1, 0.01)
    padded = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)), "reflect")
    height, width = image.shape[:2]
    blurred = 4 * image.astype(float)
    for row in range(3):
        for column in range(3):
            blurred += padded[row : row + height, column : column + width]
    blurred = np.rint(blurred / 13)
    close(found, bytes_of(blurred + (image - blurred) * (1 + value)), 1, 0.01)


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_no_value_no_change(name):
    for image in pictures():
        np.testing.assert_array_equal(apply(image, name, 0.0), image)


@pytest.mark.parametrize("value", FACTORS)
@pytest.mark.parametrize("name", ["color", "contrast", "sharpness"])
def test_a_grey_surface_stays_as_it_is(name, value):
    """Fractions of a float that is a hair too small are not cut off to a whole level less."""
    for level in range(256):
        image = np.full((4, 5, 3), level, np.uint8)
        np.testing.assert_array_equal(apply(image, name, value), image)


# Operations that move pixels


def source(name, value, height, width):
    """Where each pixel comes from: the inverse of the operation, (x, y) in float64."""
    y, x = np.mgrid[:height, :width].astype(float)
    if name == "rotate":  # clockwise, y points down
        x, y = x - (width - 1) / 2, y - (height - 1) / 2
        cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
        x, y = cos * x + sin * y, cos * y - sin * x
        return x + (width - 1) / 2, y + (height - 1) / 2
    return {
        "shear_x": (x - value * y, y),
        "shear_y": (x, y - value * x),
        "translate_x": (x - value * width, y),
        "translate_y": (x, y - value * height),
    }[name]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_pixels_come_from_where_geometry_says(name, sign, interpolation):
    """On a ramp every interpolation gives the coordinates themselves."""
    height, width = 90, 120
    row, column = np.mgrid[:height, :width]
    image = np.dstack([2 * column, 2 * row, np.full_like(row, 50)]).astype(np.uint8)
    value = sign * 0.7 * OPERATIONS[name].full
    x, y = source(name, value, height, width)
    found = apply(image, name, value, interpolation=interpolation, fill=FILL).astype(float)
    inside = (x > 2) & (x < width - 3) & (y > 2) & (y < height - 3)
    outside = (x < -2) | (x > width + 1) | (y < -2) | (y > height + 1)
    assert inside.mean() > 0.5 and outside.mean() > 0.05
    most = 2 * 0.5 + 0.1 if interpolation == "nearest" else 0.65
    assert np.abs(found[..., 0] - 2 * x)[inside].max() <= most
    assert np.abs(found[..., 1] - 2 * y)[inside].max() <= most
    assert (found[..., 2][inside] == 50).all()
    assert (found[outside] == FILL).all()


def test_interpolation_between_pixels():
    """A shift by a quarter: linear weights, and Keys' cubic with a = -0.75."""
    image = noise(6, 40)
    value = 3.25 / 40
    row = image.astype(float)
    near, far, last, before = row[:, 5:-6], row[:, 4:-7], row[:, 3:-8], row[:, 6:-5]
    a, frac = -0.75, 0.25
    cubic = [
        ((a * (frac + 1) - 5 * a) * (frac + 1) + 8 * a) * (frac + 1) - 4 * a,
        ((a + 2) * frac - (a + 3)) * frac * frac + 1,
        ((a + 2) * (1 - frac) - (a + 3)) * (1 - frac) ** 2 + 1,
        ((a * (2 - frac) - 5 * a) * (2 - frac) + 8 * a) * (2 - frac) - 4 * a,
    ]
    expected = {
        "nearest": near,
        "bilinear": 0.75 * near + 0.25 * far,
        "bicubic": cubic[0] * before + cubic[1] * near + cubic[2] * far + cubic[3] * last,
    }
    for interpolation, values in expected.items():
        found = apply(image, "translate_x", value, interpolation=interpolation)
        columns = slice(5 + 3, 40 - 6 + 3)
        difference = np.abs(found[:, columns] - np.clip(values, 0, 255))
        assert difference.max() <= 0.6, interpolation


# What is drawn


@functools.lru_cache(maxsize=None)
def draws(count, **options):
    augment = RandAugment(**options)
    return [augment.draw(np.random.default_rng(seed)) for seed in range(count)]


def values(name, count=20000, **options):
    options = {"ops": 1, "probability": 1.0, **options}
    return np.array(
        [value for drawn in draws(count, **options) for found, value in drawn if found == name]
    )


def test_operations_are_drawn_evenly_and_with_replacement():
    drawn = draws(6000, ops=2, probability=1.0)
    assert {len(names) for names in drawn} == {2}
    for position in range(2):
        counts = {name: 0 for name in OPERATIONS}
        for names in drawn:
            counts[names[position][0]] += 1
        deviations = (np.array(list(counts.values())) - 400) ** 2 / 400
        assert deviations.sum() < 40  # chi-square with 14 degrees of freedom
    same = np.mean([first[0] == second[0] for first, second in drawn])
    assert abs(same - 1 / 15) < 0.013


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.8, 1.0])
def test_each_operation_is_carried_out_for_itself(probability):
    lengths = np.array([len(drawn) for drawn in draws(4000, ops=3, probability=probability)])
    for length in range(4):
        ways = math.comb(3, length)
        expected = ways * probability**length * (1 - probability) ** (3 - length)
        assert abs((lengths == length).mean() - expected) < 0.03


@pytest.mark.parametrize("name", [name for name in POLICY if POLICY[name]])
def test_values_follow_the_magnitude(name):
    zero, full, signed = POLICY[name]
    found = values(name)
    assert len(found) > 1100
    assert abs((found < 0).mean() - 0.5 * signed) < 0.06
    if not signed:
        assert (found >= 0).all()
    share = (np.abs(found) - zero) / (full - zero)
    assert abs(share.mean() - 0.7) < 0.006
    assert abs(share.std() - 0.05) < 0.004
    assert abs(np.mean(np.abs(share - 0.7) < 0.05) - 0.683) < 0.05  # normal


def test_a_magnitude_without_deviation():
    assert set(np.round(values("rotate", 3000, magnitude_std=0), 9)) == {-21.0, 21.0}
    assert set(np.round(values("posterize", 3000, magnitude_std=0), 9)) == {1.2}


def test_magnitudes_stay_between_zero_and_full():
    found = values("rotate", 6000, magnitude=10, magnitude_std=3)
    assert np.abs(found).max() == 30 and abs((np.abs(found) == 30).mean() - 0.5) < 0.08
    found = values("shear_x", 6000, magnitude=0, magnitude_std=3)
    assert abs((found == 0).mean() - 0.5) < 0.08


def test_magnitudes_are_relative_to_the_levels():
    found = values("rotate", 6000, magnitude=21, magnitude_std=1.5, levels=30)
    assert abs(np.abs(found).mean() - 21) < 0.3 and abs(np.abs(found).std() - 1.5) < 0.25


def test_operations_are_applied_in_turn():
    augment = RandAugment(ops=4, probability=0.7)
    image = noise(30, 40)
    image.flags.writeable = False
    changed = 0
    for seed in range(60):
        expected = image
        for name, value in augment.draw(np.random.default_rng(seed)):
            expected = augment.apply(expected, name, value)
        found = augment(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, expected)
        changed += (found != image).any()
    assert changed > 45


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (30, 1), (2, 2), (7, 5)])
def test_tiny_images(height, width):
    augment = RandAugment(ops=3, probability=1.0)
    for seed in range(40):
        found = augment(noise(height, width, seed), np.random.default_rng(seed))
        assert found.shape == (height, width, 3) and found.dtype == np.uint8
