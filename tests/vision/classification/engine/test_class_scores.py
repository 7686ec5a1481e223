import numpy as np
import pytest

from official.vision.classification.data.loader import Batch
from official.vision.classification.engine import class_scores
from official.vision.classification.engine.class_scores import Best, ClassCounts, ClassScores

NAMES = ("ant", "bee", "cat", "dog")


@pytest.fixture()
def answers():
    """40 images of three of four classes, and what they are taken for; dog is never right."""
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 40, p=[0.6, 0.3, 0.1, 0.0])
    guesses = np.where(rng.random(40) < 0.6, labels, rng.integers(0, 4, 40))
    return labels.astype(np.int32), guesses


def scores_of(labels, guesses, size=7):
    logits = np.eye(4, dtype=np.float32)[guesses]
    counts = ClassCounts(4)
    for start in range(0, len(labels), size):
        part = slice(start, start + size)
        counts.add(Batch(np.empty(0), labels[part], np.arange(40)[part]), logits[part])
    return counts.scores()


def test_scores_by_their_definitions(answers):
    labels, guesses = answers
    scores = scores_of(labels, guesses)
    rows = scores.by_class(NAMES)
    pairs = list(zip(labels.tolist(), guesses.tolist()))
    for index, name in enumerate(NAMES):
        true = sum(pair == (index, index) for pair in pairs)
        named = sum(guess == index for _, guess in pairs)
        images = sum(label == index for label, _ in pairs)
        precision, recall = true / named if named else 0, true / images if images else 0
        f1 = 2 * precision * recall / (precision + recall) if true else 0
        assert rows[name]["images"] == images
        assert [rows[name][key] for key in ("precision", "recall", "f1")] == pytest.approx(
            [100 * precision, 100 * recall, 100 * f1]
        )
    means = scores.means()
    assert rows["dog"]["images"] == 0 and len(rows) == 4
    for key in ("precision", "recall", "f1"):
        assert means[f"macro_{key}"] == pytest.approx(np.mean([rows[n][key] for n in NAMES]))
    assert means["balanced_accuracy"] == pytest.approx(
        np.mean([rows[name]["recall"] for name in NAMES[:3]])
    )


def test_the_confusion_matrix(answers, monkeypatch):
    labels, guesses = answers
    told = scores_of(labels, guesses).confusion(NAMES)
    assert told["classes"] == list(NAMES)
    for row, counts in enumerate(told["counts"]):
        assert counts == [int(((labels == row) & (guesses == c)).sum()) for c in range(4)]
    monkeypatch.setattr(class_scores, "MOST_IN_MATRIX", 3)
    pairs = scores_of(labels, guesses).confusion(NAMES)["pairs"]
    assert sum(count for *_, count in pairs) == 40 and all(count for *_, count in pairs)
    assert {(a, b): n for a, b, n in pairs} == {
        (NAMES[r], NAMES[c]): told["counts"][r][c]
        for r in range(4)
        for c in range(4)
        if told["counts"][r][c]
    }


def test_classes_without_images_or_answers_are_left_out():
    matrix = np.zeros((4, 4), np.int32)
    matrix[1, 1], matrix[1, 2] = 3, 1
    scores = ClassScores(matrix)
    assert list(scores.by_class(NAMES)) == ["bee", "cat"]
    assert scores.means() == pytest.approx(
        {
            "macro_precision": 50,
            "macro_recall": 37.5,
            "macro_f1": 50 * 6 / 7,
            "balanced_accuracy": 75,
        }
    )


@pytest.mark.parametrize(
    ("metric", "values", "best", "ends"),
    [
        ("top1", [50, 60, 60, 55, 60], [0, 1], 4),
        ("loss", [2.0, 1.0, 1.5, 0.9, 0.95], [0, 1, 3], None),
        ("macro_f1", [5, 4, 3, 2, 1], [0], 3),
    ],
)
def test_the_best_epoch_and_patience(metric, values, best, ends):
    """The first of equals counts; three epochs in a row that are not better end the run."""
    state, taken, ended = Best(metric, patience=3), [], None
    for epoch, value in enumerate(values):
        if state.take(epoch, {metric: value}):
            taken.append(epoch)
        if ended is None and state.is_out_of_patience(epoch):
            ended = epoch
    assert (taken, ended) == (best, ends)
    assert state.epoch == best[-1]


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("top1", [70, 74, 76, 77], [0, 2, 3]),  # of 70 %, 100 images have an error of 4.6 %
        ("top1", [70, 71, 74.5, 70], [0]),
        ("top1", [100, 100], [0]),
        ("top1", [0, 1, 2], [0, 1, 2]),
        ("macro_f1", [50, 54, 56, 55.9], [0, 2]),
        ("loss", [1.0, 0.99, 0.98], [0, 1, 2]),
    ],
)
def test_a_linear_probe_is_kept_unless_it_is_beaten_clearly(metric, values, best):
    """By one standard error; what has taken its place must be beaten by anything."""
    state = Best(metric, probe_images=100)
    taken = [epoch for epoch, value in enumerate(values) if state.take(epoch, {metric: value})]
    assert taken == best
    assert (state.lead > 0) == (best[-1] == 0 and metric != "loss" and 0 < values[0] < 100)


def test_the_error_of_an_accuracy():
    """Against 20,000 draws of as many answers."""
    right = np.random.default_rng(0).binomial(341, 0.842, 20_000) / 341
    state = Best("top1", probe_images=341)
    state.take(0, {"top1": 84.2})
    assert state.lead == pytest.approx(100 * right.std(), rel=0.02)
