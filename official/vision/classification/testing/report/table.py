"""The answers as a table: predictions.csv."""

import csv
import io
from typing import Sequence

from .answers import Answers


def predictions_csv(answers: Answers, paths: Sequence[str], names: Sequence[str]) -> bytes:
    """A header, and a row per image in the data set's order, as RFC 4180 has it.

    Paths are bytes as the file system has them, the rest is UTF-8.

    Args:
        names: what to call each class.
    """
    top = range(1, answers.classes.shape[1] + 1)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(
        ["image", "true_class", "true_index", "true_probability", "correct", "entropy"]
        + [f"{field}_{k}" for k in top for field in ("class", "index", "probability")]
    )
    names = [harmless(name) for name in names]
    columns = (answers.labels, answers.own, answers.correct, answers.entropy)
    rows = zip(*(column.tolist() for column in columns))
    for row, (label, own, correct, entropy) in enumerate(rows):
        best = zip(answers.classes[row].tolist(), answers.probabilities[row].tolist())
        guesses = [value for index, p in best for value in (names[index], index, shortest(p))]
        about = [names[label], label, shortest(own), int(correct), shortest(entropy)]
        writer.writerow([harmless(paths[row]), *about, *guesses])
    return text.getvalue().encode("utf-8", "surrogateescape")


def harmless(text: str) -> str:
    """``text`` with an apostrophe before it where a spreadsheet would take it for a formula.

    As OWASP advises under "CSV Injection".
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def shortest(value: float) -> str:
    """Nine digits, which is what tells float32 numbers apart."""
    return f"{value:.9g}"
