import numpy as np
import pytest

from official.vision.classification.prediction.inference import Guess
from official.vision.classification.prediction.picture import annotate, fit


def test_bars_are_as_long_as_the_probabilities():
    image = np.zeros((50, 100, 3), np.uint8)
    picture = annotate(image, [Guess(0, "", 0.5), Guess(1, "", 1.0)])
    assert picture.shape == (240 + 70, 480, 3)
    assert not picture[:240].any()
    for row, length in ((0, 235), (1, 470)):
        bar = (picture[240 + 5 + 30 * row + 4] == (230, 190, 140)).all(1)
        assert abs(bar.sum() - length) <= 1


def test_names_with_other_letters_are_drawn():
    annotate(np.zeros((8, 8, 3), np.uint8), [Guess(0, "山猫", 1.0)])


@pytest.mark.parametrize(
    ("shape", "fitted"),
    [
        ((50, 100), (240, 480)),
        ((2000, 1000), (960, 480)),
        ((2000, 500), (960, 240)),
        ((20000, 10), (960, 1)),
        ((10, 20000), (1, 480)),
        ((1, 1), (480, 480)),
    ],
)
def test_the_image_fits_into_the_picture(shape, fitted):
    """And one that has been fitted stays as it is."""
    image = np.random.default_rng(0).integers(0, 250, (*shape, 3), np.uint8)
    small = fit(image)
    assert small.shape == (*fitted, 3)
    assert np.array_equal(fit(small), small)


def test_a_strip_stands_in_the_middle_of_a_white_field():
    strip = np.full((20000, 100, 3), (1, 2, 3), np.uint8)
    picture = annotate(strip, [Guess(0, "", 0.0)])
    assert picture.shape == (960 + 40, 480, 3)
    assert (picture[:960, 237:242] == (1, 2, 3)).all()
    assert (picture[:960, :237] == 255).all() and (picture[:960, 242:] == 255).all()
