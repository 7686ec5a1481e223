import csv
import io
import os

import numpy as np
import pytest

from official.vision.classification.testing.report.table import harmless, predictions_csv
from tests.vision.classification.testing.report.reports import answers_to, logits_of

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
    assert [row["image"] for row in rows] == [harmless(path) for path in PATHS]
    assert len(rows[0]) == 6 + 3 * min(5, classes)
    exact = np.exp(logits.astype(float))
    exact /= exact.sum(1, keepdims=True)
    for row, p, label in zip(rows, exact, labels.tolist()):
        assert (row["true_class"], int(row["true_index"])) == (harmless(NAMES[label]), label)
        assert float(row["true_probability"]) == pytest.approx(p[label], rel=1e-6)
        assert float(row["entropy"]) == pytest.approx(-(p * np.log(p)).sum(), rel=1e-6)
        assert row["correct"] == str(int(p.argmax() == label))
        for k, index in enumerate(np.argsort(-p)[:5].tolist(), 1):
            assert (row[f"class_{k}"], row[f"index_{k}"]) == (harmless(NAMES[index]), str(index))
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


@pytest.mark.parametrize("first", list("=+-@\t\r\n"))
def test_no_text_is_a_formula(first):
    assert harmless(f"{first}1") == f"'{first}1"


@pytest.mark.parametrize("text", ["", "a=1", "'quoted", "./-x", "7"])
def test_other_text_stays(text):
    assert harmless(text) == text
