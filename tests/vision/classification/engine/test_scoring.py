"""A batch's scores, against sums in float64 and sorting by hand."""

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.normalize import Normalize
from official.vision.classification.engine.scoring import (
    ClassScore,
    Scorer,
    finite,
    log_softmax,
    top_classes,
    top_scores,
)
from official.vision.classification.errors import TrainingError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.cifar import resnet20_cifar

PLAIN = Preprocess(mean=(100, 110, 120), std=(50, 60, 70), resize=None, crop=None)


@pytest.fixture(scope="module")
def network():
    mge.random.seed(4)
    model = resnet20_cifar(num_classes=7)
    model.eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), np.uint8)
    return model, images


def exact(model, images):
    """Probabilities in float64, by a normalisation by hand."""
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (PLAIN.mean, PLAIN.std))
    logits = model(mge.Tensor(((images - mean) / std).astype(np.float32))).numpy().astype(float)
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_logits_features_and_maps_belong_together(network):
    model, images = network
    plain = Scorer(model, Normalize(PLAIN))(images)
    full = Scorer(model, Normalize(PLAIN), with_maps=True)(images)
    assert plain.features is None and plain.maps is None
    assert np.allclose(np.exp(log_softmax(plain.logits)), exact(model, images), rtol=1e-4)
    assert np.allclose(plain.logits, full.logits, atol=1e-4)
    assert np.allclose(full.maps.mean((2, 3)), full.features, atol=1e-5)
    by_hand = full.features @ model.fc.weight.numpy().T + model.fc.bias.numpy()
    assert np.allclose(by_hand, full.logits, atol=1e-3)


def test_the_flip_average_is_of_probabilities(network):
    model, images = network
    scorer = Scorer(model, Normalize(PLAIN))
    found = np.exp(scorer.flip_average(images, scorer(images).logits))
    expected = (exact(model, images) + exact(model, images[..., ::-1])) / 2
    assert np.allclose(found, expected, rtol=1e-4)
    assert np.allclose(found.sum(1), 1, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(network, value):
    logits = np.zeros((2, 3), np.float32)
    assert finite(logits) is logits
    logits[1, 2] = value
    with pytest.raises(TrainingError, match="^a.onnx: the network's outputs are not finite"):
        finite(logits, "a.onnx: the network's")
    model = lambda x: mge.Tensor(logits)  # noqa: E731
    for call in (lambda s: s(network[1]), lambda s: s.flip_average(network[1], np.zeros((2, 3)))):
        with pytest.raises(TrainingError, match="^the network's outputs are not finite"):
            call(Scorer(model, Normalize(PLAIN)))


@pytest.mark.parametrize("k", [1, 3, 9])
def test_ties_go_by_class_number(k):
    logits = np.random.default_rng(1).integers(0, 3, (50, 6)).astype(np.float32)
    expected = [sorted(range(6), key=lambda c, row=row: (-row[c], c))[:k] for row in logits]
    assert top_classes(logits, k).tolist() == expected
    names = list("abcdef")
    for scores, row, best in zip(top_scores(logits, names, k), logits.astype(float), expected):
        p = np.exp(row) / np.exp(row).sum()
        assert [(s.index, s.name) for s in scores] == [(i, names[i]) for i in best]
        assert [s.probability for s in scores] == pytest.approx(p[best].tolist(), rel=1e-12)


def test_json_has_seven_digits_and_sums_to_one():
    logits = np.random.default_rng(2).normal(0, 3, (1, 1000)).astype(np.float32)
    (scores,) = top_scores(logits, [""] * 1000, 1000)
    numbers = [score.to_dict()["probability"] for score in scores]
    assert all(len(f"{number:e}".split("e")[0]) <= 8 for number in numbers)
    assert sum(numbers) == pytest.approx(1, abs=1e-6)
    assert numbers == pytest.approx([s.probability for s in scores], rel=1e-6)
    assert ClassScore(3, "x", 1 / 3).to_dict() == {
        "index": 3,
        "name": "x",
        "probability": 0.3333333,
    }
