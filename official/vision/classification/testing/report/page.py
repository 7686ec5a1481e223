"""A report: predictions.csv, and the page made from official/assets/report.html."""

import base64
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import jinja2
import numpy as np

from ...engine.files import write_atomically
from ...text import printable
from ...zoo.classes import display_names
from ..calibration import Reliability, reliability
from .answers import Answers, ReportData, predictions_csv
from .figures import Picture, confusion_overview, reliability_diagram
from .gallery import cards, choose, most_uncertain, surest_mistakes
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

PAGE, TABLE = "report.html", "predictions.csv"

_TEMPLATE = Path(__file__).resolve().parents[4] / "assets" / "report.html"
_MAX_ROWS = 1000  # of the table of classes
_MAX_PAIRS = 20  # of the table of confusions
_NAMED = 30  # classes whose names fit beside a confusion matrix
_PART = 24  # classes of a part of it, where there are more
_CELLS = 100  # of the picture of all of it, in each direction
_DEEP = 0.85  # from this depth of blue on, numbers are written in white


def write_report(target: Path, data: ReportData) -> None:
    """Write ``report.html`` and ``predictions.csv`` into the folder ``target``.

    The page needs no other file and no network. It is as large for a million images as for a
    thousand: at most 240 thumbnails, 1,000 classes and 20 confusions are in it.

    Raises:
        DataError: naming the image, when one that is shown cannot be read any more.
        UserError: when a file cannot be written.
    """
    names = unique_names(data.folder.classes)
    write_atomically(target / TABLE, predictions_csv(data.answers, data.folder.paths, names))
    shown = [name.replace("_", " ") for name in names]  # lines break between words
    write_atomically(target / PAGE, render(_content(data, shown)))


def unique_names(classes: Sequence[str]) -> List[str]:
    """What to call each class; two of one name, as ImageNet's cranes, have their number as well."""
    names = display_names(tuple(classes), len(classes))
    count = Counter(names)
    return [f"{name} ({number})" if count[name] > 1 else name for number, name in enumerate(names)]


def render(content: Dict[str, Any], template: Optional[str] = None) -> bytes:
    """The page with ``content`` in the template's places.

    Names of classes and files are foreign: jinja2 escapes them, and control characters in them are
    written as escapes, as on a terminal. Of scripts, browsers run the template's own only, by its
    digest in the page's content security policy.
    """
    text = _TEMPLATE.read_text(encoding="utf-8") if template is None else template
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    ]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=1: f"{100 * share:.{digits}f} %"
    environment.filters["count"] = lambda number: f"{number:,}"
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    page = environment.from_string(text).render(content, script_sources=sources)
    return page.encode("utf-8")


def _content(data: ReportData, names: Sequence[str]) -> Dict[str, Any]:
    """What the template's places are filled with."""
    answers = data.answers
    pairs = confusions(answers)
    rows = class_rows(answers, pairs)
    bins = reliability(answers.confidence, answers.correct)
    worst = choose(surest_mistakes(answers), answers)
    uncertain = choose(most_uncertain(answers), answers)
    both = worst + uncertain
    shown = np.union1d(answers.labels[both], answers.guesses[both]).tolist()
    return {
        "title": data.title,
        "about": data.about,
        "remarks": data.remarks,
        "names": names,
        "num_classes": answers.num_classes,
        "tiles": _tiles(answers, data.loss, bins),
        "rows": rows[:_MAX_ROWS],
        "rows_absent": answers.num_classes - len(rows),
        "rows_left_out": max(0, len(rows) - _MAX_ROWS),
        "shown": sorted(shown, key=lambda index: (names[index].lower(), index)),
        **_matrix_and_overview(answers, pairs, rows, names),
        "pairs": pairs[:_MAX_PAIRS],
        "calibration_error": bins.error,
        "diagram": reliability_diagram(bins),
        "bins": _bins(bins),
        "worst": cards(worst, data.folder, answers),
        "uncertain": cards(uncertain, data.folder, answers),
    }


class Tile(NamedTuple):
    """One of the numbers that sum up a test, with smaller lines below."""

    name: str
    value: str
    below: Sequence[str]


def _tiles(answers: Answers, loss: float, bins: Reliability) -> List[Tile]:
    total = len(answers)
    shares = [("Top-1 accuracy", answers.correct)]
    if answers.classes.shape[1] < answers.num_classes:
        shares.append((f"Top-{answers.classes.shape[1]} accuracy", answers.among_top))
    tiles = []
    for name, right in shares:
        count = int(right.sum())
        low, high = wilson(count, total)
        below = (f"95 %: {100 * low:.2f} to {100 * high:.2f} %", f"{count:,} of {total:,}")
        tiles.append(Tile(name, f"{100 * count / total:.2f} %", below))
    tiles.append(Tile("Cross-entropy", f"{loss:.4f}", ["mean over all images"]))
    tiles.append(Tile("Calibration error", f"{100 * bins.error:.2f} %", ["expected (ECE)"]))
    return tiles


class Cell(NamedTuple):
    """Of a confusion matrix: a number, how deep its colour is from 0 to 1, and of which kind."""

    images: int
    depth: float
    kind: str


class Matrix(NamedTuple):
    """A part of a confusion matrix, with the names of its columns and rows."""

    columns: List[str]
    rows: List[str]
    cells: List[List[Cell]]


def _matrix_and_overview(
    answers: Answers, pairs: List[Confusion], rows: List[ClassRow], names: Sequence[str]
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
    table = _coloured(matrix(answers, classes), classes, names) if classes else None
    return {"matrix": table, "overview": overview}


def _coloured(counts: np.ndarray, classes: Sequence[int], names: Sequence[str]) -> Matrix:
    """``statistics.matrix`` with a colour for each number.

    Blue deepens with the share of a class's images that is right, orange with the share that is
    taken for another class, up to the largest such share. A last column, without colour, holds the
    classes that have none of their own, where an image was taken for one.
    """
    size = len(classes)
    columns = [names[index] for index in classes]
    if counts[:, size].any():
        columns.append("any other")
    else:
        counts = counts[:, :size]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    right = shares.diagonal()
    wrong = shares.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:, size:] = 0
    wrong /= wrong.max(initial=0.0) or 1.0
    cells = [
        [
            Cell(count, right[row], "right deep" if right[row] > _DEEP else "right")
            if column == row
            else Cell(count, wrong[row, column], "wrong")
            for column, count in enumerate(values)
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
