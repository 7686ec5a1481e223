import csv
import io
import math
import os

import numpy as np
import pytest

from official.vision.classification.data.loader import Batch
from official.vision.classification.engine.evaluation import Counter
from official.vision.classification.testing.report import answers as module
from official.vision.classification.testing.report.answers import AnswersOfAll, predictions_csv
from official.vision.classification.text import no_formula
from tests.vision.classification.testing.report.reports import answers_to, logits_of


def softmax(row):
    most = max(row)
    exact = [math.exp(value - most) for value in row]
    return [value / math.fsum(exact) for value in exact]


@pytest.mark.parametrize("classes", [2, 3, 5, 6, 40])
def test_answers_are_those_of_one_row_after_another(classes):
    logits, labels = logits_of(150, classes)
    answers = answers_to(logits, labels)
    assert (len(answers), answers.num_classes) == (150, classes)
    for row, label in enumerate(labels.tolist()):
        p = softmax(logits[row].astype(float).tolist())
        best = sorted(range(classes), key=lambda i: -p[i])[:5]
        assert answers.classes[row].tolist() == best
        assert answers.probabilities[row] == pytest.approx([p[i] for i in best], rel=1e-6)
        assert answers.own[row] == pytest.approx(p[label], rel=1e-6)
        entropy = -math.fsum(value * math.log(value) for value in p)
        assert answers.entropy[row] == pytest.approx(entropy, rel=1e-6)
        assert answers.guesses[row] == best[0]
        assert answers.confidence[row] == answers.probabilities[row, 0]
        assert (answers.correct[row], answers.among_top[row]) == (best[0] == label, label in best)
    assert 10 < answers.correct.sum() < 150


@pytest.mark.parametrize("classes", [4, 9, 200])
def test_they_agree_with_the_evaluator_on_ties(classes):
    """Logits of three values, so that most images have several likeliest classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 200).astype(np.int32)
    logits = rng.integers(0, 3, (200, classes)).astype(np.float32)
    counted = Counter().add(logits, labels)
    answers = answers_to(logits, labels)
    assert answers.correct.sum() == counted.top1_correct
    assert answers.among_top.sum() == counted.top5_correct


def test_sure_answers():
    """Logits so far apart that the other classes' probabilities are zero."""
    answers = answers_to(np.array([[1e4, -1e4, 0]], np.float32), np.array([1], np.int32))
    assert answers.confidence[0] == 1 and answers.own[0] == 0 and answers.entropy[0] == 0


def test_ranks_fill_each_others_gaps(monkeypatch):
    logits, labels = logits_of(70, 7)
    collected = []
    for rank in range(3):
        collected.append(AnswersOfAll(70, 7))
        rows = np.arange(rank, 70, 3)
        collected[-1].add(Batch(None, labels[rows], rows), logits[rows])
    parts = []
    with monkeypatch.context() as patch:
        patch.setattr(module, "sum_over_ranks", lambda values: parts.append(values) or values)
        for one in collected:
            one.gather()
    whole = vars(answers_to(logits, labels)).values()
    arrays = [value for value in whole if isinstance(value, np.ndarray)]
    assert len(parts) == 3 * len(arrays) == 15
    for number, array in enumerate(arrays):
        assert np.array_equal(sum(parts[number::5]), array)
        assert parts[number].dtype == array.dtype in (np.float32, np.int32)


NAMES = ["cat", 'comma, "quote"', "=1+1", "猫", "-dash", "plain"]
PATHS = [
    "a.jpg",
    "two\nlines\r.jpg",
    "=HYPERLINK(1)",
    "猫.jpg",
    os.fsdecode(b"\xff.jpg"),
    "+x",
    "@y",
]


@pytest.mark.parametrize("classes", [3, 6])
def test_it_is_read_back_as_it_was(classes):
    logits, labels = logits_of(len(PATHS), classes)
    answers = answers_to(logits, labels)
    data = predictions_csv(answers, PATHS, NAMES[:classes])
    text = io.StringIO(data.decode("utf-8", "surrogateescape"), newline="")
    rows = list(csv.DictReader(text))
    assert [row["image"] for row in rows] == [no_formula(path) for path in PATHS]
    assert len(rows[0]) == 6 + 3 * min(5, classes)
    exact = np.exp(logits.astype(float))
    exact /= exact.sum(1, keepdims=True)
    for row, p, label in zip(rows, exact, labels.tolist()):
        assert (row["true_class"], int(row["true_index"])) == (no_formula(NAMES[label]), label)
        assert float(row["true_probability"]) == pytest.approx(p[label], rel=1e-6)
        assert float(row["entropy"]) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-6)
        assert row["correct"] == str(int(p.argmax() == label))
        for k, index in enumerate(np.argsort(-p)[:5].tolist(), 1):
            assert (row[f"class_{k}"], row[f"index_{k}"]) == (no_formula(NAMES[index]), str(index))
            assert float(row[f"probability_{k}"]) == pytest.approx(p[index], rel=1e-6)
    assert {row["correct"] for row in rows} <= {"0", "1"}


def test_numbers_are_those_that_were_gathered():
    """To the last bit of float32."""
    answers = answers_to(*logits_of(50, 6))
    text = predictions_csv(answers, [str(i) for i in range(50)], NAMES).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for name, column in (("true_probability", answers.own), ("entropy", answers.entropy)):
        assert np.array_equal(np.array([row[name] for row in rows]).astype(np.float32), column)


def test_the_columns():
    header = predictions_csv(answers_to(*logits_of(1, 2)), ["x"], NAMES).split(b"\r\n")[0]
    assert header == (
        b"image,true_class,true_index,true_probability,correct,entropy,"
        b"class_1,index_1,probability_1,class_2,index_2,probability_2"
    )
