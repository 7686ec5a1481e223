"""What a network answers to every image: a few numbers each, gathered from all ranks."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Optional, Sequence

import numpy as np

from ...data.dataset import ImageDataset
from ...data.loader import Batch
from ...distributed.collectives import sum_over_ranks
from ...engine.scoring import log_softmax, top_classes
from ...text import no_formula

TABLE = "predictions.csv"  # a row for every image
TOP = 5


@dataclass(frozen=True)
class Answers:
    """The answers to N images, in the data set's order.

    Args:
        num_classes: C.
        labels: ``(N,)`` int32, the right class.
        classes: ``(N, K)`` int32, the likeliest classes, best first; K is five, or all there are.
            Equal ones are ranked by class number, as the evaluator does.
        probabilities: ``(N, K)`` float32, theirs.
        own: ``(N,)`` float32, the right class's probability.
        entropy: ``(N,)`` float32, that of all C probabilities, in nats: 0 is sure, log C knows
            nothing.
    """

    num_classes: int
    labels: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    own: np.ndarray
    entropy: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def guesses(self) -> np.ndarray:
        """``(N,)`` int32, the likeliest class."""
        return self.classes[:, 0]

    @property
    def confidence(self) -> np.ndarray:
        """``(N,)`` float32, its probability."""
        return self.probabilities[:, 0]

    @property
    def correct(self) -> np.ndarray:
        """``(N,)`` bool: the likeliest class is the right one."""
        return self.guesses == self.labels

    @property
    def among_top(self) -> np.ndarray:
        """``(N,)`` bool: the right class is among the K likeliest."""
        return (self.classes == self.labels[:, None]).any(1)


class AnswersOfAll:
    """Collects answers, of which every rank has some; 52 bytes for each image of all ranks."""

    def __init__(self, total: int, num_classes: int):
        top = min(TOP, num_classes)
        self.num_classes = num_classes
        self._labels = np.zeros(total, np.int32)
        self._classes = np.zeros((total, top), np.int32)
        self._probabilities = np.zeros((total, top), np.float32)
        self._own = np.zeros(total, np.float32)
        self._entropy = np.zeros(total, np.float32)

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Note the answers to a batch of this rank, by its ``(N, C)`` logits."""
        best = top_classes(logits, self._classes.shape[1])
        logarithms = log_softmax(logits)
        probabilities = np.exp(logarithms)
        rows, where = np.arange(len(logits)), batch.indices
        self._labels[where] = batch.labels
        self._classes[where] = best
        self._probabilities[where] = probabilities[rows[:, None], best]
        self._own[where] = probabilities[rows, batch.labels]
        self._entropy[where] = -(probabilities * logarithms).sum(1)

    def gather(self) -> Answers:
        """The answers of all ranks.

        Every rank fills its rows among zeros, so that the sums are exact, in any order.
        """
        return Answers(
            self.num_classes,
            sum_over_ranks(self._labels),
            sum_over_ranks(self._classes),
            sum_over_ranks(self._probabilities),
            sum_over_ranks(self._own),
            sum_over_ranks(self._entropy),
        )


@dataclass(frozen=True)
class ReportData:
    """What a report is made of.

    Args:
        folder: the images, with labels that are numbers among the logits.
        answers: in the order of these images.
        loss: mean cross-entropy.
        title: what was tested on what, in a few words.
        about: what was tested and on what, by name.
        remarks: further lines on the result.
        heat: draws an image under the heat map of a class; None for no heat maps.
        run: the folder of the run that the network is of, if it is one's best.
        language: of the page, "en" or "zh".
    """

    folder: ImageDataset
    answers: Answers
    loss: float
    title: str
    about: Dict[str, str]
    remarks: Sequence[str] = ()
    heat: Optional[Callable[[np.ndarray, int], np.ndarray]] = None
    run: Optional[Path] = None
    language: str = "en"


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
    names = [no_formula(name) for name in names]
    columns = (answers.labels, answers.own, answers.correct, answers.entropy)
    rows = zip(*(column.tolist() for column in columns))
    for row, (label, own, correct, entropy) in enumerate(rows):
        best = zip(answers.classes[row].tolist(), answers.probabilities[row].tolist())
        guesses = [value for index, p in best for value in (names[index], index, _shortest(p))]
        about = [names[label], label, _shortest(own), int(correct), _shortest(entropy)]
        writer.writerow([no_formula(paths[row]), *about, *guesses])
    return text.getvalue().encode("utf-8", "surrogateescape")


def _shortest(value: float) -> str:
    """Nine digits, which is what tells float32 numbers apart."""
    return f"{value:.9g}"
