from collections import Counter

import numpy as np
import pytest

from official.vision.classification.testing.report.confusion import (
    Confusion,
    confused_classes,
    confusions,
    density,
    matrix,
)
from tests.vision.classification.testing.report.reports import answers_to, logits_of


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
