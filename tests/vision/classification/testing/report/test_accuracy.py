import math

import numpy as np
import pytest

from official.vision.classification.testing.report.accuracy import class_rows, wilson
from official.vision.classification.testing.report.confusion import confusions
from tests.vision.classification.testing.report.reports import answers_to, logits_of


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_intervals_are_the_published_ones(successes, total, low, high):
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3; the last one by symmetry."""
    assert wilson(successes, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "total"), [(1, 3), (50, 100), (9999, 10000), (4, 4), (0, 1)])
def test_the_ends_are_where_the_test_of_a_share_turns(successes, total):
    """At both, the observed share is 1.96 standard errors of that share away."""
    z = 1.959964
    share = successes / total
    low, high = wilson(successes, total)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / total), abs=1e-6)


@pytest.mark.parametrize("classes", [3, 8])
def test_rows_are_those_of_one_image_after_another(classes):
    logits, labels = logits_of(90, classes, skill=1.0)
    labels[labels == 1] = 0  # class 1 has no image, but is named
    answers = answers_to(logits, labels)
    rows = class_rows(answers, confusions(answers))
    order = np.argsort(-logits, axis=1)
    assert sorted(row.index for row in rows) == [0, *range(2, classes)]
    for row in rows:
        own = [i for i in range(90) if labels[i] == row.index]
        right = [i for i in own if order[i, 0] == row.index]
        assert (row.images, row.correct) == (len(own), len(right))
        assert row.among_top == sum(row.index in order[i, :5] for i in own)
        assert row.named == (order[:, 0] == row.index).sum()
        assert row.accuracy == len(right) / len(own)
        assert row.precision == len(right) / (order[:, 0] == row.index).sum()
        taken = np.bincount([order[i, 0] for i in own if i not in right], minlength=classes)
        assert row.mistaken.count == taken.max() == taken[row.mistaken.guess]
    assert [row.accuracy for row in rows] == sorted(row.accuracy for row in rows)


def test_a_class_that_is_never_named_and_one_that_is_always_right():
    answers = answers_to(np.array([[2, 1, 0], [2, 1, 0]], np.float32), np.array([0, 1], np.int32))
    first, second = class_rows(answers, confusions(answers))
    assert (first.index, first.accuracy, first.precision, first.named) == (1, 0, None, 0)
    assert (second.index, second.accuracy, second.precision, second.named) == (0, 1, 0.5, 2)
    assert first.mistaken.guess == 0 and second.mistaken is None
