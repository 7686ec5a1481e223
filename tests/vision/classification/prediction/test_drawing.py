import megengine as mge
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.engine import lettering
from official.vision.classification.engine.scoring import ClassScore
from official.vision.classification.prediction.drawing import (
    annotate,
    fit,
    grad_cam,
    heat_maps,
    overlay,
)
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.resnet.model import resnet18
from official.vision.classification.resnet.preact import resnetv2_50

BAR = (240, 205, 160)
ROOM = 480 - 2 * 8 - 82  # for the bar of a probability of 1, left of the column of numbers


def bars(rows):
    """How long the bar of each row is, looked at just below its upper edge."""
    return [(row == BAR).all(1).sum() for row in rows]


def test_bars_are_as_long_as_the_probabilities():
    image = np.zeros((50, 100, 3), np.uint8)
    picture = annotate(image, [ClassScore(0, "", 0.5), ClassScore(1, "", 1.0)])
    assert picture.shape == (240 + 2 * 32 + 16, 480, 3)
    assert not picture[:240].any()
    assert bars(picture[[240 + 8 + 3, 240 + 8 + 32 + 3]]) == [ROOM // 2, ROOM]


def test_what_would_be_0_0_percent_is_left_out():
    image = np.zeros((50, 100, 3), np.uint8)
    scores = [ClassScore(0, "a", 0.9991), ClassScore(1, "b", 0.0005), ClassScore(2, "c", 0.0004)]
    assert annotate(image, scores).shape == (240 + 2 * 32 + 16, 480, 3)
    assert annotate(image, scores[2:]).shape == (240 + 32 + 16, 480, 3)  # one stays


def test_numbers_end_in_one_column():
    """And no name reaches into it."""
    scores = [ClassScore(0, "name " * 40, p) for p in (1.0, 0.25, 0.125, 0.005)]
    panel = annotate(np.zeros((48, 480, 3), np.uint8), scores)[48:]
    ends = []
    for row in range(4):
        dark = (panel[8 + 32 * row : 40 + 32 * row].max(2) < 150).any(0)
        ends.append(int(dark.nonzero()[0].max()))
        assert not dark[8 + ROOM - 8 : 480 - 8 - 75].any()
    assert max(ends) - min(ends) <= 1 and 465 <= min(ends) < 472


def test_names_with_other_letters_are_drawn(monkeypatch):
    """As letters where a font has them; else as the class's number."""
    blank = np.zeros((8, 8, 3), np.uint8)
    drawn = [annotate(blank, [ClassScore(7, name, 1.0)]) for name in ("crème", "creme", "class 7")]
    assert (drawn[0] != drawn[1]).any()
    monkeypatch.setattr(lettering, "_installed", list)
    lettering.font_file.cache_clear()
    unknown = annotate(blank, [ClassScore(7, "\U0001f9ed", 1.0)])
    lettering.font_file.cache_clear()
    assert np.array_equal(unknown, drawn[2])


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
    picture = annotate(strip, [ClassScore(0, "", 0.0)])
    assert picture.shape == (960 + 48, 480, 3)
    assert (picture[:960, 237:242] == (1, 2, 3)).all()
    assert (picture[:960, :237] == 255).all() and (picture[:960, 242:] == 255).all()


def last_map(model, pixels):
    """A network's last map of some random images."""
    model.eval()
    rng = np.random.default_rng(0)
    images = mge.Tensor(rng.normal(size=(2, 3, pixels, pixels)).astype(np.float32))
    return list(model.extract_features(images).values())[-1].numpy()


def logits_of(model, maps, monkeypatch):
    """The network's own forward pass from ``maps`` on."""
    monkeypatch.setattr(model, "extract_features", lambda x: {"res4": maps, "res5": maps})
    return model(mge.Tensor(np.zeros((2, 3, 8, 8), np.float32)))


def heat_of(alphas, maps):
    """Equation 2, in float64, and scaled to 1."""
    heat = np.zeros((len(maps), *maps.shape[2:]))
    for n in range(len(maps)):
        for k in range(maps.shape[1]):
            heat[n] += alphas[n, k] * maps[n, k].astype(np.float64)
        heat[n] = np.maximum(heat[n], 0)
        heat[n] /= heat[n].max()
    return heat


def test_against_finite_differences(monkeypatch):
    """Equation 1: every pixel of the map is moved a little, and the change of the logit noted."""
    mge.random.seed(1)
    model = CifarResNet(1, num_classes=4)
    maps = last_map(model, 12)  # (2, 64, 3, 3)
    labels = np.array([3, 1])
    base = logits_of(model, mge.Tensor(maps), monkeypatch).numpy()
    alphas = np.zeros((2, 64))
    for k in range(64):
        for pixel in range(9):
            moved = maps.copy()
            moved[:, k].reshape(2, 9)[:, pixel] += 1.0  # the rest of the network is linear
            change = logits_of(model, mge.Tensor(moved), monkeypatch).numpy() - base
            alphas[:, k] += change[[0, 1], labels] / 9
    found = grad_cam(maps, model.fc.weight.numpy(), labels)
    assert found.shape == (2, 3, 3)
    assert np.allclose(found, heat_of(alphas, maps), atol=1e-3)


@pytest.mark.parametrize(
    "build",
    [resnet18, resnetv2_50, lambda **kwargs: resnetv2_50(paper_form=True, **kwargs)],
    ids=["v1", "v2", "v2 of the paper"],
)
def test_against_gradients_through_the_network(build, monkeypatch):
    mge.random.seed(2)
    model = build(num_classes=5)
    maps = last_map(model, 64)
    labels = np.array([4, 0])
    tensor = mge.Tensor(maps)
    with GradManager().attach([tensor]) as gradients:
        logits = logits_of(model, tensor, monkeypatch)
        gradients.backward(logits[0, 4] + logits[1, 0])
    alphas = tensor.grad.numpy().mean((2, 3), dtype=np.float64)
    found = grad_cam(maps, model.fc.weight.numpy(), labels)
    assert found.max() == 1
    assert np.allclose(found, heat_of(alphas, maps), atol=1e-4)


def test_what_speaks_against_a_class_is_zero():
    maps = np.zeros((2, 2, 1, 2), np.float32)
    maps[:, 0, 0, 0], maps[:, 1, 0, 1] = 2, 3
    classifier = np.array([[1, -1], [-1, -1]], np.float32)
    assert grad_cam(maps, classifier, np.array([0, 1])).tolist() == [[[1, 0]], [[0, 0]]]


def test_colours_are_as_opaque_as_the_heat():
    picture = np.full((40, 60, 3), 100, np.uint8)
    heat = np.zeros((4, 8), np.float32)
    heat[:2, :2], heat[:2, 6:] = 1, 0.5
    result = overlay(picture, heat, (0.25, 1 / 6, 0.75, 5 / 6))
    seen = np.zeros((40, 60), bool)
    seen[10:30, 10:50] = True
    assert (result[~seen] == 50).all()
    assert (result[28, 26:34] == 100).all()  # no heat, no colour
    # A fifth of 100 and four fifths of red; three fifths and two fifths of half yellow, half red.
    assert np.abs(result[12, 12].astype(int) - (52, 20, 184)).max() <= 1
    half = 100 * 0.6 + 0.4 * (np.array([0, 225, 255]) + (40, 0, 205)) / 2
    assert np.abs(result[12, 47] - half).max() <= 2
    assert (picture == 100).all()


def test_heat_maps_stand_beside_the_image():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 250, (32, 48, 3), np.uint8)
    maps = [np.eye(4, dtype=np.float32), np.zeros((4, 4), np.float32)]
    scores = [ClassScore(3, "a", 0.75), ClassScore(1, "b", 0.25), ClassScore(0, "c", 0.0)]
    found = heat_maps(image, maps, (0, 0, 1, 1), scores)
    assert found.shape == (320 + 48, 3 * 480 + 2 * 6, 3)
    first, second, third = (found[:, 486 * part : 486 * part + 480] for part in range(3))
    assert np.array_equal(first[:320], fit(image))
    assert np.array_equal(second[:320], overlay(fit(image), maps[0], (0, 0, 1, 1)))
    assert np.array_equal(third[:320], fit(image))
    assert bars(part[320 + 8 + 3] for part in (first, second, third)) == [
        *(0, round(ROOM * 0.75), round(ROOM * 0.25))
    ]
    assert (found[:, 480:486] == 255).all()


@pytest.mark.parametrize("shape", [(1, 480), (960, 1), (7, 3)])
def test_any_shape_is_coloured(shape):
    picture = np.zeros((*shape, 3), np.uint8)
    for seen in (
        (0, 0, 1, 1),
        (0.45, 0.45, 0.55, 0.55),
        (0.5, 0.5, 0.52, 0.52),
        (0.99, 0.99, 1, 1),
    ):
        assert overlay(picture, np.eye(3, dtype=np.float32), seen).shape == picture.shape
