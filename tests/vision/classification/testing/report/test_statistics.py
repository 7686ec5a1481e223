import math
from collections import Counter

import numpy as np
import pytest

from official.vision.classification.testing.report.statistics import (
    Confusion,
    class_rows,
    confused_classes,
    confusions,
    density,
    matrix,
    wilson,
)
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


@pytest.fixture(scope="module")
def twelve():
    """Logits, labels and answers of twelve classes, some of which have more images."""
    logits, labels = logits_of(400, 12, skill=1.0)
    labels[labels == 5] = 7
    return logits, labels, answers_to(logits, labels)


def counted(logits, labels):
    """How often each pair of right class and guess occurs."""
    return Counter(zip(labels.tolist(), logits.argmax(1).tolist()))


def test_pairs_are_counted_and_sorted(twelve):
    logits, labels, answers = twelve
    pairs = confusions(answers)
    expected = {pair: n for pair, n in counted(logits, labels).items() if pair[0] != pair[1]}
    assert {(pair.label, pair.guess): pair.count for pair in pairs} == expected
    assert [pair.images for pair in pairs] == [(labels == pair.label).sum() for pair in pairs]
    keys = [(-pair.count, pair.images, pair.label, pair.guess) for pair in pairs]
    assert keys == sorted(keys) and len({key[:2] for key in keys}) > 5


def test_no_confusion():
    assert confusions(answers_to(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32))) == []


@pytest.mark.parametrize("classes", [range(12), (7, 0, 11), (3,)])
def test_a_part_of_the_matrix_with_all_the_others(twelve, classes):
    logits, labels, answers = twelve
    classes, pairs = list(classes), counted(logits, labels)
    found = matrix(answers, classes)
    assert found.shape == (len(classes), len(classes) + 1)
    for row, label in enumerate(classes):
        assert found[row, :-1].tolist() == [pairs[label, guess] for guess in classes]
        others = [guess for guess in range(12) if guess not in classes]
        assert found[row, -1] == sum(pairs[label, guess] for guess in others)
        assert found[row].sum() == (labels == label).sum()


@pytest.mark.parametrize(
    ("cells", "size", "width"), [(12, 12, 1), (100, 12, 1), (5, 4, 3), (7, 6, 2)]
)
def test_neighbouring_classes_share_a_cell(twelve, cells, size, width):
    logits, labels, answers = twelve
    found = density(confusions(answers), 12, cells)
    expected = np.zeros((size, size), int)
    for (label, guess), n in counted(logits, labels).items():
        if label != guess:
            expected[label // width, guess // width] += n
    assert np.array_equal(found, expected)


def pairs_of(*pairs):
    return [Confusion(label, guess, 100 - place, 100) for place, (label, guess) in enumerate(pairs)]


def test_linked_classes_are_neighbours():
    """8-9-1 by way of 9, and 4-5; the larger group first."""
    pairs = pairs_of((8, 9), (4, 5), (9, 8), (9, 1))
    assert confused_classes(pairs, 24) == [8, 9, 1, 4, 5]
    assert confused_classes(pairs, 4) == [8, 9, 4, 5]
    assert confused_classes(pairs, 3) == [8, 9]
    assert confused_classes(pairs_of((1, 2), (3, 4), (2, 3)), 4) == [1, 2, 3, 4]
    assert confused_classes([], 24) == []
