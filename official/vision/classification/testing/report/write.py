"""From answers to the two files of a report."""

from collections import Counter
from pathlib import Path
from typing import Dict, List, Sequence
from xml.etree.ElementTree import Element

import numpy as np

from ...engine.files import write_atomically
from ...zoo.classes import display_names
from ..calibration import Reliability, reliability
from . import page
from .accuracy import ClassRow, class_rows
from .cards import cards
from .confusion import Confusion, confused_classes, confusions, density, matrix
from .figures import confusion_overview, reliability_diagram
from .gallery import choose, most_uncertain, surest_mistakes
from .markup import tag
from .table import predictions_csv
from .tested import Tested

PAGE, TABLE = "report.html", "predictions.csv"

_NAMED = 30  # classes whose names fit beside a confusion matrix
_PART = 24  # classes of a part of it, where there are more
_CELLS = 100  # of the picture of all of it, in each direction


def write_report(target: Path, tested: Tested) -> None:
    """Write ``report.html`` and ``predictions.csv`` into the folder ``target``.

    The page needs no other file and no network. It is as large for a million images as for a
    thousand: at most 240 thumbnails, 1,000 classes and 20 confusions are in it.

    Raises:
        DataError: naming the image, when one that is shown cannot be read any more.
        UserError: when a file cannot be written.
    """
    names = unique_names(tested.folder.classes)
    table = predictions_csv(tested.answers, tested.folder.paths, names)
    write_atomically(target / TABLE, table)
    shown = [name.replace("_", " ") for name in names]  # lines break between words
    write_atomically(target / PAGE, page.fill(_parts(tested, shown)))


def unique_names(classes: Sequence[str]) -> List[str]:
    """What to call each class; two of one name, as ImageNet's cranes, have their number as well."""
    names = display_names(tuple(classes), len(classes))
    count = Counter(names)
    return [f"{name} ({number})" if count[name] > 1 else name for number, name in enumerate(names)]


def _parts(tested: Tested, names: Sequence[str]) -> Dict[str, List[Element]]:
    answers = tested.answers
    pairs = confusions(answers)
    rows = class_rows(answers, pairs)
    bins = reliability(answers.confidence, answers.correct)
    worst = choose(surest_mistakes(answers), answers)
    uncertain = choose(most_uncertain(answers), answers)
    both = worst + uncertain
    shown = np.union1d(answers.labels[both], answers.guesses[both]).tolist()
    return {
        "title": [tag("title", f"Test report: {tested.title}")],
        "heading": [tag("p", tested.title, class_="lead")],
        "about": page.about_list(tested.about),
        "tiles": page.tiles(answers, tested.loss, bins),
        "remarks": [tag("p", line) for line in tested.remarks],
        "class_notes": _class_notes(rows, answers.num_classes),
        "classes": page.class_table(rows, names, set(shown)),
        "matrix": _matrix(tested, pairs, [row.index for row in rows], names),
        "pairs": page.pairs_table(pairs, names),
        "reliability": _reliability(bins),
        "bins": page.bins_table(bins),
        "options": page.class_options(shown, names),
        "worst": cards(worst, tested.folder, answers, names)
        or [tag("li", "No image is named wrong.")],
        "uncertain": cards(uncertain, tested.folder, answers, names),
    }


def _class_notes(rows: Sequence[ClassRow], num_classes: int) -> List[Element]:
    """Which classes the table lacks."""
    absent, left_out = num_classes - len(rows), len(rows) - page.MAX_ROWS
    notes = []
    if absent:
        notes.append(tag("p", f"Without an image here: {absent:,} of the network's classes."))
    if left_out > 0:
        notes.append(tag("p", f"Left out: {left_out:,} of the highest accuracy."))
    return notes


def _matrix(
    tested: Tested, pairs: List[Confusion], present: Sequence[int], names: Sequence[str]
) -> List[Element]:
    answers = tested.answers
    count = answers.num_classes
    if count <= _NAMED:
        classes = sorted({*present, *answers.guesses.tolist()})
        return [page.scrolled(page.heat_map(matrix(answers, classes), classes, names))]
    if not pairs:
        return [tag("p", "No image is named wrong.")]
    overview = confusion_overview(density(pairs, count, _CELLS), count)
    alt = f"Where the wrong answers lie among the {count:,} classes, by their numbers"
    part = confused_classes(pairs, _PART)
    return [
        tag("p", f"The {len(part)} classes of the most frequent confusions:"),
        page.scrolled(page.heat_map(matrix(answers, part), part, names)),
        tag("p", f"All wrong answers, the {count:,} classes in the order of their numbers:"),
        page.picture(overview, alt, 640),
    ]


def _reliability(bins: Reliability) -> List[Element]:
    alt = (
        "Reliability diagram: accuracy by confidence, and the share of images at each confidence; "
        f"the expected calibration error is {100 * bins.error:.2f} %"
    )
    return [page.picture(reliability_diagram(bins), alt, 600)]
