import math

import numpy as np
import pytest

from official.vision.classification.data.loader import Batch
from official.vision.classification.errors import DataError
from official.vision.classification.testing import calibration
from official.vision.classification.testing.calibration import (
    LogitsOfAll,
    calibrate,
    confidences,
    expected_calibration_error,
    fit_temperature,
    mean_loss,
    reliability,
)


def overconfident(count, classes=7, seed=0, scale=3.0):
    """Labels drawn from the softmax of some logits, which are then multiplied by ``scale``."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # a draw from the softmax
    return (scale * logits).astype(np.float32), labels.astype(np.int32)


def ece_by_the_book(confidence, correct, bins):
    """Bin after bin, sample after sample."""
    total = 0.0
    for m in range(1, bins + 1):
        own = [i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins]
        if own:
            accuracy = sum(bool(correct[i]) for i in own) / len(own)
            mean = sum(float(confidence[i]) for i in own) / len(own)
            total += len(own) / len(confidence) * abs(accuracy - mean)
    return total


def loss_by_the_book(logits, labels, temperature):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist()):
        scaled = [value / temperature for value in row]
        most = max(scaled)
        total += math.log(sum(math.exp(v - most) for v in scaled)) + most - scaled[label]
    return total / len(labels)


@pytest.mark.parametrize("bins", [1, 2, 15, 40])
def test_ece_is_the_definition(bins):
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.uniform(0.01, 1, 500), np.arange(1, bins + 1) / bins])
    correct = rng.random(len(confidence)) < confidence**2
    found = expected_calibration_error(confidence, correct, bins)
    assert found == pytest.approx(ece_by_the_book(confidence, correct, bins), rel=1e-12)
    assert found > 0.05


def test_bins_hold_what_lies_in_them():
    """Sample after sample; 0.2 and 0.4 are the upper ends of their bins, and a bin is empty."""
    confidence = np.array([0.2, 0.21, 0.4, 0.55, 0.61, 0.61])
    correct = np.array([True, False, True, False, True, False])
    bins = reliability(confidence, correct, 5)
    assert bins.counts.tolist() == [1, 2, 1, 2, 0]
    assert bins.correct.tolist() == [1, 1, 0, 1, 0]
    assert bins.confidence.tolist() == pytest.approx([0.2, 0.61, 0.55, 1.22, 0])
    assert bins.error == pytest.approx((0.8 + 0.39 + 0.55 + 0.22) / 6)


def test_ece_by_hand():
    """Bins of a fifth: (0.6, 0.8] has 0.7 and 0.8, one of them right; (0.8, 1] has 1, wrong."""
    confidence = np.array([0.7, 0.8, 1.0])
    found = expected_calibration_error(confidence, np.array([True, False, False]), 5)
    assert found == pytest.approx(2 / 3 * abs(0.5 - 0.75) + 1 / 3 * 1)


def test_confidences_are_the_largest_probabilities():
    logits = np.array([[1000.0, 999.0], [-5000.0, -5000.0]], np.float32)
    assert confidences(logits, 0.5) == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
    logits, _ = overconfident(5000)  # more than one block
    exact = np.exp(logits.astype(np.longdouble) / 3)
    expected = (exact / exact.sum(1, keepdims=True)).max(1)
    assert np.allclose(confidences(logits, 3), expected.astype(float), rtol=1e-12)


def test_loss_is_the_definition():
    logits, labels = overconfident(5000)
    for temperature in (1.0, 2.5):
        expected = loss_by_the_book(logits, labels, temperature)
        assert mean_loss(logits, labels, temperature) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 60.0])
@pytest.mark.parametrize("classes", [2, 30])
def test_the_temperature_is_the_best_of_a_grid(scale, classes):
    logits, labels = overconfident(600, classes, scale=scale)
    found = fit_temperature(logits, labels)
    grid = found * np.exp(np.linspace(-0.5, 0.5, 401))  # steps of 1/400
    wide = np.exp(np.linspace(math.log(0.002), math.log(500), 60))
    exact, rows = logits.astype(np.longdouble), np.arange(600)
    losses = {
        t: (np.log(np.exp(exact / t).sum(1)) - exact[rows, labels] / t).sum()
        for t in (*wide, *grid)
        if np.abs(exact).max() / t < 10_000  # longdouble holds exp() of that
    }
    assert min(losses, key=losses.get) == pytest.approx(found, rel=1e-9)
    assert 0.7 * scale < found < 1.4 * scale


def test_a_network_that_is_too_hesitant_gets_a_temperature_below_1():
    logits, labels = overconfident(20000, scale=0.5)
    assert fit_temperature(logits, labels) == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("right", [True, False])
def test_temperatures_have_limits(right, caplog):
    """Always right: the surer the better. Always wrong: the less sure the better."""
    labels = np.arange(40, dtype=np.int32) % 4
    logits = np.eye(4, dtype=np.float32)[labels if right else (labels + 1) % 4]
    result = calibrate(logits, labels)
    assert result.temperature == (0.001 if right else 1000)
    assert "no temperature is best" in caplog.text
    assert result.ece_after == pytest.approx(0 if right else 0.25, abs=1e-3)


def test_even_rows_fit_and_odd_rows_judge(caplog):
    logits, labels = overconfident(1001)
    result = calibrate(logits, labels)
    assert (result.fitted_on, result.judged_on, result.bins) == (501, 500, 15)
    even, odd = slice(0, None, 2), slice(1, None, 2)
    assert result.temperature == fit_temperature(logits[even], labels[even])
    assert result.temperature != fit_temperature(logits[odd], labels[odd])
    correct = logits[odd].argmax(1) == labels[odd]
    for temperature, ece, loss in (
        (1.0, result.ece_before, result.loss_before),
        (result.temperature, result.ece_after, result.loss_after),
    ):
        exact = np.exp(logits[odd].astype(float) / temperature)
        confidence = (exact / exact.sum(1, keepdims=True)).max(1)
        assert ece == pytest.approx(ece_by_the_book(confidence, correct, 15), rel=1e-9)
        expected = loss_by_the_book(logits[odd], labels[odd], temperature)
        assert loss == pytest.approx(expected, rel=1e-9)
    assert result.ece_after < 0.1 < 0.2 < result.ece_before
    assert not caplog.text


def test_what_is_told():
    logits, labels = overconfident(101)
    result = calibrate(logits, labels)
    first, second = result.lines()
    assert first == f"Temperature {result.temperature:.4f}, fitted on every other image (51)"
    assert second == (
        f"ECE {100 * result.ece_before:.3f} % before, {100 * result.ece_after:.3f} % after, on the "
        "others (50; 15 bins)"
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_rows_of_all_ranks_come_together(ranks, monkeypatch):
    """Every rank's arrays, summed as an all-reduce does; more rows than are sent at once."""
    monkeypatch.setattr(calibration, "_ROWS", 16)
    logits, labels = overconfident(50)
    sent = []
    for rank in range(ranks):
        own = LogitsOfAll(50, 7)
        for start in range(rank, 50, 4 * ranks):
            indices = np.arange(start, min(50, start + 4 * ranks), ranks)
            own.add(Batch(None, labels[indices], indices), logits[indices])
        calls = []
        monkeypatch.setattr(calibration, "sum_over_ranks", lambda v, to=calls: to.append(v) or v)
        own.gather()
        sent.append(calls)
    sums = iter([sum(parts) for parts in zip(*sent)])
    monkeypatch.setattr(calibration, "sum_over_ranks", lambda values: next(sums))
    found, answers = LogitsOfAll(50, 7).gather()
    assert np.array_equal(found, logits)
    assert np.array_equal(answers, labels)


def test_two_halves_need_two_images():
    with pytest.raises(DataError, match="--calibrate needs two images or more, but there is 1"):
        LogitsOfAll(1, 3)
    result = calibrate(np.array([[1, 0], [0, 1]], np.float32), np.array([1, 0]))
    assert (result.fitted_on, result.judged_on) == (1, 1)
