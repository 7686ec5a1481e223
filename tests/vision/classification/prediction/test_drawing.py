import megengine as mge
import numpy as np
import pytest
from megengine.autodiff import GradManager

from official.vision.classification.engine.scoring import ClassScore
from official.vision.classification.prediction.drawing import annotate, fit, grad_cam, overlay
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.resnet.model import resnet18
from official.vision.classification.resnet.preact import resnetv2_50


def test_bars_are_as_long_as_the_probabilities():
    image = np.zeros((50, 100, 3), np.uint8)
    picture = annotate(image, [ClassScore(0, "", 0.5), ClassScore(1, "", 1.0)])
    assert picture.shape == (240 + 70, 480, 3)
    assert not picture[:240].any()
    for row, length in ((0, 235), (1, 470)):
        bar = (picture[240 + 5 + 30 * row + 4] == (230, 190, 140)).all(1)
        assert abs(bar.sum() - length) <= 1


def test_names_with_other_letters_are_drawn():
    annotate(np.zeros((8, 8, 3), np.uint8), [ClassScore(0, "山猫", 1.0)])


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
    assert picture.shape == (960 + 40, 480, 3)
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


def test_colours_lie_on_what_was_seen():
    picture = np.full((40, 60, 3), 100, np.uint8)
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 1
    result = overlay(picture, heat, (0.25, 1 / 6, 0.75, 5 / 6))
    seen = np.zeros((40, 60), bool)
    seen[10:30, 10:50] = True
    assert (result[~seen] == 50).all()
    # The map's first pixel is red, and the others dark blue: half of (0, 0, 128), half of 100.
    assert tuple(result[10, 10]) == (50, 50, 114)
    assert tuple(result[29, 49]) == (114, 50, 50)
    assert (picture == 100).all()


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
