"""TrivialAugment next to torchvision's, which tests/oracles/trivial_augment.json.gz has."""

import base64
import gzip
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from official.vision.classification.data.augment import Augment, TrainTransform
from official.vision.classification.data.augmentation.trivial_augment import (
    BINS,
    OPERATIONS,
    TrivialAugment,
)

FILE = Path(__file__).resolve().parents[4] / "oracles" / "trivial_augment.json.gz"
RECORD = json.loads(gzip.decompress(FILE.read_bytes()))
PUBLISHED = RECORD["changes"]
HEIGHT, WIDTH = 24, 30


def decoded(text):
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(HEIGHT, WIDTH, 3)


def own(name):
    """ShearX -> shear_x."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)[1:]


def test_the_changes_and_their_strengths_are_torchvisions():
    assert list(OPERATIONS) == [
        *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness"),
        *("color", "contrast", "sharpness", "posterize", "solarize", "auto_contrast", "equalize"),
    ]
    assert sorted(OPERATIONS) == sorted(own(name) for name in PUBLISHED) and BINS == 31
    for name, change in PUBLISHED.items():
        strengths, signed = OPERATIONS[own(name)]
        found = [strengths(number) for number in range(BINS)]
        expected = change["strengths"]
        np.testing.assert_allclose(found, expected if len(expected) > 1 else [0] * BINS, rtol=1e-6)
        assert signed == change["signed"]


def inside(changed):
    """Pixels that no border has a part in, which libraries treat each in its own way."""
    seen = changed.any(2)
    for _ in range(2):
        padded = np.pad(seen, 1, constant_values=True)
        seen = np.all(
            [padded[y : y + HEIGHT, x : x + WIDTH] for y in range(3) for x in range(3)], axis=0
        )
    return seen


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_are_torchvisions(name):
    """To the bit where none is interpolated, but for the grey of "color", which is rounded here.

    torchvision shears about the corner of the corner pixel, here it is its centre.
    """
    most = {"Rotate": (0.6, 1), "ShearX": (1.4, 5), "ShearY": (1.4, 7), "Color": (0.6, 1)}
    image = decoded(RECORD["picture"])
    assert len(PUBLISHED[name]["made"]) >= (4 if PUBLISHED[name]["signed"] else 1)
    for value, text in PUBLISHED[name]["made"].items():
        expected = decoded(text)
        # The other way round, as a sign's odds are the same.
        sign = -1 if name in ("Rotate", "ShearX", "ShearY") else 1
        given = np.ascontiguousarray(image[:, :, ::-1])
        found = TrivialAugment().apply(given, own(name), sign * float(value))[:, :, ::-1]
        seen = (inside(found) & inside(expected))[1:-1, 1:-1]  # Pillow filters no outer pixels
        assert seen.mean() > 0.1
        difference = np.abs(found.astype(int) - expected.astype(int))[1:-1, 1:-1][seen]
        mean, largest = most.get(name, (0, 0))
        assert difference.mean() <= mean and difference.max() <= largest, value


def test_what_is_outside_is_black_or_the_colour_that_is_asked_for():
    image = np.full((40, 40, 3), 200, np.uint8)
    moved = TrivialAugment().apply(image, "translate_x", 9.6)
    assert (moved[:, :9] == 0).all() and (moved[:, 9:] == 200).all()  # 9 whole pixels
    moved = TrivialAugment(fill=(1, 2, 3)).apply(image, "translate_y", -5)
    assert (moved[35:] == (1, 2, 3)).all() and (moved[:35] == 200).all()


def test_all_changes_strengths_and_signs_are_drawn_at_equal_odds():
    rng, count = np.random.default_rng(0), 14 * 4000
    drawn = [TrivialAugment().draw(rng) for _ in range(count)]
    found = Counter(name for name, _ in drawn)
    assert set(found) == set(OPERATIONS)
    assert all(abs(each - 4000) < 6 * 4000**0.5 for each in found.values())
    for name, (strengths, signed) in OPERATIONS.items():
        values = [value for each, value in drawn if each == name]
        assert {round(abs(value), 9) for value in values} == {
            round(abs(strengths(number)), 9) for number in range(BINS)
        }
        negative = sum(value < 0 for value in values) / len(values)
        assert abs(negative - (0.5 * 30 / 31 if signed else 0)) < 0.05
        if len(set(values)) > 20:  # the mean strength is half of the full one
            middle = (strengths(0) + strengths(BINS - 1)) / 2
            assert np.mean(np.abs(values)) == pytest.approx(middle, rel=0.05)


def test_it_is_used_on_training_images():
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    plain = TrainTransform(32, Augment(flip=False))
    trivial = TrainTransform(32, Augment(flip=False, trivial_augment={}))
    differ = 0
    for seed in range(60):
        cropped = plain(image, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        TrainTransform(32, Augment(flip=False))(image, rng)
        expected = TrivialAugment()(cropped, rng)
        found = trivial(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(found, expected)
        differ += not np.array_equal(found, cropped)
    assert 40 < differ < 60
