"""A report: predictions.csv, and the page made from official/assets/report/report.html."""

from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from ...engine.files import write_atomically
from ...page import Say, Tile, render, speaker
from ...zoo.classes import display_names
from ..calibration import Reliability, reliability
from .answers import TABLE, Answers, ReportData, predictions_csv
from .figures import Picture, confusion_overview, reliability_diagram
from .gallery import Card, cards, choose, most_uncertain, of_pairs, surest_mistakes, surest_right
from .run import read_run
from .statistics import (
    ClassRow,
    Confusion,
    class_rows,
    confused_classes,
    confusions,
    density,
    matrix,
    wilson,
)

PAGE = "report.html"

_MAX_ROWS = 1000  # of the table of classes
_MAX_PAIRS = 20  # of the table of confusions
_NAMED = 30  # classes whose names fit beside a confusion matrix
_PART = 24  # classes of a part of it, where there are more
_CELLS = 100  # of the picture of all of it, in each direction
_DEEP = 0.85  # from this depth of blue on, numbers are written in white


def write_report(target: Path, data: ReportData) -> None:
    """Write ``report.html`` and ``predictions.csv`` into the folder ``target``.

    The page needs no other file and no network. It is as large for a million images as for a
    thousand: at most 440 thumbnails, 1,000 classes and 20 confusions are in it.

    Raises:
        DataError: naming the image, when one that is shown cannot be read any more.
        UserError: when a file cannot be written.
    """
    names = unique_names(data.folder.classes)
    write_atomically(target / TABLE, predictions_csv(data.answers, data.folder.paths, names))
    shown = [name.replace("_", " ") for name in names]  # lines break between words
    content = _content(data, shown, speaker(data.language))
    write_atomically(target / PAGE, render(content, PAGE, data.language))


def unique_names(classes: Sequence[str]) -> List[str]:
    """What to call each class; two of one name, as ImageNet's cranes, have their number as well."""
    names = display_names(tuple(classes), len(classes))
    count = Counter(names)
    return [f"{name} ({number})" if count[name] > 1 else name for number, name in enumerate(names)]


def _content(data: ReportData, names: Sequence[str], say: Say) -> Dict[str, Any]:
    """What the template's places are filled with."""
    answers = data.answers
    pairs = confusions(answers)
    rows = class_rows(answers, pairs)
    bins = reliability(answers.confidence, answers.correct)
    pictures = _pictures(data, pairs)
    both = [card for found in pictures.values() for card in found]
    shown = {number for card in both for number in (card.label, card.guess)}
    return {
        "title": data.title,
        "about": data.about,
        "remarks": data.remarks,
        "run": read_run(data.run, say) if data.run else None,
        "names": names,
        "num_classes": answers.num_classes,
        "tiles": _tiles(answers, data.loss, bins, rows, say),
        "rows": rows[:_MAX_ROWS],
        "rows_absent": answers.num_classes - len(rows),
        "rows_left_out": max(0, len(rows) - _MAX_ROWS),
        "shown": sorted(shown, key=lambda index: (names[index].lower(), index)),
        "seen": {(card.label, card.guess) for card in both},
        **_matrix_and_overview(answers, pairs, rows, names, say),
        "pairs": pairs[:_MAX_PAIRS],
        "calibration_error": bins.error,
        "diagram": reliability_diagram(bins, say),
        "bins": _bins(bins),
        "has_heat": data.heat is not None,
        **pictures,
    }


def _pictures(data: ReportData, pairs: List[Confusion]) -> Dict[str, List[Card]]:
    """The three galleries."""
    answers = data.answers
    worst = choose(surest_mistakes(answers), answers)
    worst += of_pairs(pairs[:_MAX_PAIRS], answers, worst)
    return {
        "worst": cards(worst, data.folder, answers, data.heat),
        "uncertain": cards(choose(most_uncertain(answers), answers), data.folder, answers),
        "surest": cards(choose(surest_right(answers), answers), data.folder, answers),
    }


def _tiles(
    answers: Answers, loss: float, bins: Reliability, rows: Sequence[ClassRow], say: Say
) -> List[Tile]:
    total, count, top = len(answers), answers.num_classes, answers.classes.shape[1]
    shares = [(say("Top-1 accuracy"), answers.correct)]
    if top < count:
        shares.append((say("Top-%(k)s accuracy", k=top), answers.among_top))
    tiles = []
    for name, correct in shares:
        right = int(correct.sum())
        low, high = wilson(right, total)
        below = (
            f"95 %: {100 * low:.2f} – {100 * high:.2f} %",
            say("%(right)s of %(total)s right", right=f"{right:,}", total=f"{total:,}"),
        )
        tiles.append(Tile(name, f"{100 * right / total:.2f} %", below))
    named = len(set(answers.guesses.tolist()) - set(answers.labels.tolist()))
    f1 = sum(row.f1 for row in rows) / (len(rows) + named)
    recall = sum(row.accuracy for row in rows) / len(rows)
    balanced = say("balanced accuracy %(share)s", share=f"{100 * recall:.2f} %")
    over = say("mean over %(count)s classes", count=f"{len(rows) + named:,}")
    tiles.append(Tile(say("Macro F1"), f"{100 * f1:.2f} %", [over, balanced]))
    tiles.append(Tile(say("Cross-entropy"), f"{loss:.4f}", [say("mean over all images")]))
    error = f"{100 * bins.error:.2f} %"
    tiles.append(Tile(say("Calibration error"), error, [say("expected (ECE)")]))
    return tiles


class Cell(NamedTuple):
    """Of a confusion matrix: a number, how deep its colour is from 0 to 1, and of which kind.

    ``label`` and ``guess`` are its classes; -1 stands for any other.
    """

    images: int
    depth: float
    kind: str
    label: int
    guess: int


class Matrix(NamedTuple):
    """A part of a confusion matrix, with the names of its columns and rows."""

    columns: List[str]
    rows: List[str]
    cells: List[List[Cell]]


def _matrix_and_overview(
    answers: Answers, pairs: List[Confusion], rows: List[ClassRow], names: Sequence[str], say: Say
) -> Dict[str, Any]:
    """The matrix of all classes; of many the most confused ones, and a picture of all."""
    count = answers.num_classes
    overview: Optional[Picture] = None
    if count <= _NAMED:
        classes = sorted({*(row.index for row in rows), *answers.guesses.tolist()})
    else:
        classes = confused_classes(pairs, _PART)
        if pairs:
            overview = confusion_overview(density(pairs, count, _CELLS), count)
    table = _coloured(matrix(answers, classes), classes, names, say) if classes else None
    return {"matrix": table, "overview": overview}


def _coloured(counts: np.ndarray, classes: Sequence[int], names: Sequence[str], say: Say) -> Matrix:
    """``statistics.matrix`` with a colour for each number.

    Blue deepens with the share of a class's images that is right, orange with the share that is
    taken for another class, up to the largest such share. A last column, without colour, holds the
    classes that have none of their own, where an image was taken for one.
    """
    size = len(classes)
    columns = [names[index] for index in classes]
    if counts[:, size].any():
        columns.append(say("any other"))
    else:
        counts = counts[:, :size]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = shares.diagonal()
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:, size:] = 0
    wrong /= wrong.max(initial=0.0) or 1.0
    numbers = [*classes, -1]
    cells = [
        [
            Cell(count, right[row], "right deep" if right[row] > _DEEP else "right", *both)
            if column == row
            else Cell(count, wrong[row, column], "wrong", *both)
            for column, count in enumerate(values)
            for both in [(numbers[row], numbers[column])]
        ]
        for row, values in enumerate(counts.tolist())
    ]
    return Matrix(columns, columns[:size], cells)


class Bin(NamedTuple):
    """Images whose confidence is between two shares."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def _bins(bins: Reliability) -> List[Bin]:
    """The numbers behind the reliability diagram, for the bins that have images."""
    size = len(bins.counts)
    rows = zip(bins.counts.tolist(), bins.confidence.tolist(), bins.correct.tolist())
    return [
        Bin(place / size, (place + 1) / size, count, confidence / count, right / count)
        for place, (count, confidence, right) in enumerate(rows)
        if count
    ]
