"""Two tests on the same images, side by side, as a page."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from ...data.image import read_image
from ...engine.class_scores import wilson
from ...engine.files import write_atomically
from ...errors import DataError, UsageError
from ...page import Tile, render, speaker
from .answers import TABLE
from .gallery import thumbnail

_SHOWN = 24  # images of each kind
_LARGE = 320  # of them, in pixels
_CLASSES = 2000  # rows


@dataclass(frozen=True)
class Tested:
    """What predictions.csv has of a test, in its order.

    Args:
        name: what to call the test.
        images: their paths.
        labels, guesses: the right class and the first answer of each, by name.
        shares: the first answer's probability.
    """

    name: str
    images: List[str]
    labels: List[str]
    guesses: List[str]
    shares: List[float]

    @property
    def correct(self) -> List[bool]:
        return [label == guess for label, guess in zip(self.labels, self.guesses)]


def read_tested(folder: Path, name: str) -> Tested:
    """Read the predictions.csv of a report.

    Raises:
        UsageError: when there is none that can be used.
    """
    path = folder / TABLE
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
        images, labels, guesses = (
            [row[column] for row in rows] for column in ("image", "true_class", "class_1")
        )
        shares = [float(row["probability_1"]) for row in rows]
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; --html needs two tests") from None
    except (KeyError, TypeError, ValueError, csv.Error):
        raise UsageError(f"{path}: is not what test.py --report writes") from None
    if not rows:
        raise UsageError(f"{path}: has no images")
    return Tested(name, images, labels, guesses, shares)


def write_comparison(target: Path, first: Tested, second: Tested, language: str) -> None:
    """Write the page on two tests.

    Raises:
        UsageError: when they are not of the same images.
        UserError: when it cannot be written.
    """
    if [*zip(first.images, first.labels)] != [*zip(second.images, second.labels)]:
        raise UsageError(
            f"--html: {first.name} and {second.name} were not tested on the same images; "
            "--data tests both on one data set"
        )
    write_atomically(target, render(_content(first, second, language), "compare.html", language))


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value that both networks are right equally often.

    McNemar, Psychometrika 12, 1947: of the images that one of them has right and the other has
    wrong, each would have one half.
    """
    count, least = only_first + only_second, min(only_first, only_second)
    logarithms = (
        math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        for k in range(least + 1)
    )
    tail = math.fsum(math.exp(value - count * math.log(2)) for value in logarithms)
    return min(1.0, 2 * tail)


class ClassPair(NamedTuple):
    """A class in both tests: how many of its images are right, and its F1 from 0 to 1."""

    name: str
    images: int
    right: Tuple[int, int]
    f1: Tuple[float, float]

    @property
    def difference(self) -> float:
        """Of the accuracies, in points of per cent."""
        return 100 * (self.right[1] - self.right[0]) / self.images


class Pair(NamedTuple):
    """An image and both answers to it: the class, its probability, and whether it is right."""

    file: str
    label: str
    thumbnail: str
    answers: List[Tuple[str, float, bool]]


def _content(first: Tested, second: Tested, language: str) -> Dict[str, Any]:
    say, both = speaker(language), (first, second)
    right = [test.correct for test in both]
    total = len(first.images)
    counts: Dict[Tuple[bool, bool], int] = {}
    for pair in zip(*right):
        counts[pair] = counts.get(pair, 0) + 1
    only = counts.get((True, False), 0), counts.get((False, True), 0)
    tiles = [_tile(test, sum(one), total, say("Top-1 accuracy")) for test, one in zip(both, right)]
    change = 100 * (sum(right[1]) - sum(right[0])) / total
    p_value = mcnemar(*only)
    shown_p = "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"
    below = [say("percentage points, second less first"), say("McNemar's test: %(p)s", p=shown_p)]
    tiles.append(Tile(say("Difference"), f"{change:+.2f}", below))
    rows = _classes(both, right)
    return {
        "names": [test.name for test in both],
        "tiles": tiles,
        "total": total,
        "both_right": counts.get((True, True), 0),
        "both_wrong": counts.get((False, False), 0),
        "only": only,
        "rows": rows[:_CLASSES],
        "galleries": [_pairs(both, right, (True, False)), _pairs(both, right, (False, True))],
    }


def _tile(test: Tested, right: int, total: int, what: str) -> Tile:
    low, high = wilson(right, total)
    between = f"95 %: {100 * low:.2f} – {100 * high:.2f} %"
    return Tile(
        test.name, f"{100 * right / total:.2f} %", [what, between, f"{right:,} / {total:,}"]
    )


def _classes(both: Sequence[Tested], right: Sequence[Sequence[bool]]) -> List[ClassPair]:
    """Those whose accuracy differs most come first."""
    images = _count(both[0].labels)
    named = [_count(test.guesses) for test in both]
    correct = [
        _count([c for c, ok in zip(test.labels, one) if ok]) for test, one in zip(both, right)
    ]
    rows = []
    for name, count in images.items():
        hits = [found.get(name, 0) for found in correct]
        f1 = [2 * hit / (count + found.get(name, 0)) for hit, found in zip(hits, named)]
        rows.append(ClassPair(name, count, (hits[0], hits[1]), (f1[0], f1[1])))
    return sorted(rows, key=lambda row: (-abs(row.difference), row.name))


def _count(names: Sequence[str]) -> Dict[str, int]:
    found: Dict[str, int] = {}
    for name in names:
        found[name] = found.get(name, 0) + 1
    return found


def _pairs(
    both: Sequence[Tested], right: Sequence[Sequence[bool]], which: Tuple[bool, bool]
) -> List[Pair]:
    """Images that one test has right and the other wrong, the surest of the wrong answers first."""
    wrong = both[which.index(False)]
    found = [row for row, pair in enumerate(zip(*right)) if pair == which]
    found.sort(key=lambda row: -wrong.shares[row])
    return [
        Pair(
            Path(both[0].images[row]).name,
            both[0].labels[row],
            _thumbnail(both[0].images[row]),
            [(t.guesses[row], t.shares[row], one[row]) for t, one in zip(both, right)],
        )
        for row in found[:_SHOWN]
    ]


def _thumbnail(path: str) -> str:
    """Of an image, or nothing where it is not there or not a file of its own."""
    try:
        return thumbnail(read_image(path), _LARGE)
    except DataError:
        return ""
