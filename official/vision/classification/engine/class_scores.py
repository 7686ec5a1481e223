"""Scores by class: precision, recall, F1, their means over classes, and the confusion matrix.

All of them follow from integers: how many images of each class were taken for each class.
"""

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..data.loader import Batch
from ..distributed.collectives import sum_over_ranks

MOST_IN_MATRIX = 100  # classes; of more, a JSON file has the pairs that occur
BEST_METRICS = ("top1", "macro_f1", "balanced_accuracy", "loss")
_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below it: 95 % within both sides


class ClassCounts:
    """Counts the answers of this rank, batch by batch."""

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self._codes: List[np.ndarray] = []

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Count a batch by its ``(N, C)`` logits; equal ones are ranked by class number."""
        guesses = logits.argmax(1).astype(np.int64)
        self._codes.append(batch.labels.astype(np.int64) * self.num_classes + guesses)

    def scores(self) -> "ClassScores":
        """What all ranks have counted."""
        size = self.num_classes
        codes = np.concatenate(self._codes) if self._codes else np.empty(0, np.int64)
        counts = np.bincount(codes, minlength=size * size).astype(np.int32)
        return ClassScores(sum_over_ranks(counts).reshape(size, size))


@dataclass(frozen=True)
class ClassScores:
    """Scores of C classes.

    As in scikit-learn with ``zero_division=0``: a precision or recall of nothing is 0, and means
    are those of the classes of which there are images or answers; balanced accuracy (Brodersen et
    al., ICPR 2010) is the mean recall of the classes of which there are images.

    Args:
        matrix: ``(C, C)`` integers, how many images of the row's class were taken for the column's.
    """

    matrix: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """``(C,)`` integers: how many there are of each class."""
        return self.matrix.sum(1)

    @property
    def precision(self) -> np.ndarray:
        """``(C,)`` from 0 to 1: of the images taken for a class, the share that are of it."""
        return _ratio(self.matrix.diagonal(), self.matrix.sum(0))

    @property
    def recall(self) -> np.ndarray:
        """``(C,)`` from 0 to 1: of the images of a class, the share that are taken for it."""
        return _ratio(self.matrix.diagonal(), self.images)

    @property
    def f1(self) -> np.ndarray:
        """``(C,)`` from 0 to 1: the harmonic mean of precision and recall."""
        return _ratio(2 * self.matrix.diagonal(), self.matrix.sum(0) + self.images)

    @property
    def present(self) -> np.ndarray:
        """Numbers of the classes of which there are images or answers."""
        return np.flatnonzero(self.images + self.matrix.sum(0))

    def means(self) -> Dict[str, float]:
        """Over classes, in per cent."""
        present = self.present
        return {
            "macro_precision": 100 * float(self.precision[present].mean()),
            "macro_recall": 100 * float(self.recall[present].mean()),
            "macro_f1": 100 * float(self.f1[present].mean()),
            "balanced_accuracy": 100 * float(self.recall[self.images > 0].mean()),
        }

    def by_class(self, names: Sequence[str]) -> Dict[str, Dict[str, float]]:
        """Of each class that is present, its number of images and, in per cent, its scores."""
        columns = (self.images, 100 * self.precision, 100 * self.recall, 100 * self.f1)
        return {
            names[index]: dict(
                zip(("images", "precision", "recall", "f1"), (c[index].item() for c in columns))
            )
            for index in self.present.tolist()
        }

    def confusion(self, names: Sequence[str]) -> Dict[str, Any]:
        """The matrix of the classes that are present, or of many the pairs that occur.

        ``counts`` has a row for each right class and a column for each answer; ``pairs`` has
        ``[right class, answer, images]``.
        """
        present = self.present
        if len(present) <= MOST_IN_MATRIX:
            counts = self.matrix[np.ix_(present, present)].tolist()
            return {"classes": [names[index] for index in present], "counts": counts}
        rows, columns = np.nonzero(self.matrix)
        found = zip(rows.tolist(), columns.tolist(), self.matrix[rows, columns].tolist())
        return {"pairs": [[names[row], names[column], count] for row, column, count in found]}


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return parts / np.maximum(wholes, 1)


def wilson(successes: int, total: int) -> Tuple[float, float]:
    """The 95 % interval of a share, both ends from 0 to 1, for ``total`` above 0.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    Unlike the usual plus and minus it holds for small numbers, and near 0 and 100 %.
    """
    share, z2 = successes / total, _Z**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    reach = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass
class Best:
    """The epoch that did best so far, by one score.

    Args:
        metric: of ``BEST_METRICS``.
        patience: epochs without a better one after which a run ends; None for never.
        probe_images: validation images where epoch 0 is a linear probe. Of several epochs one is
            better by chance, and so the simpler network is kept unless another leads by more than
            the standard error of an accuracy (Breiman et al., Classification and Regression Trees,
            1984, section 3.4.3: the rule of one standard error). A loss has no such error here.
        score: its value, higher is better: a loss has its sign changed. None before the first.
    """

    metric: str
    patience: Optional[int] = None
    probe_images: int = 0
    score: Optional[float] = None
    epoch: int = 0

    @property
    def lead(self) -> float:
        """By how much an epoch must be better than the best one to take its place."""
        if self.score is None or self.epoch or not self.probe_images or self.metric == "loss":
            return 0.0
        share = self.score / 100
        return 100 * math.sqrt(share * (1 - share) / self.probe_images)

    def take(self, epoch: int, values: Dict[str, float]) -> bool:
        """Note what ``epoch`` has reached, and say whether it is the best."""
        score = -values["loss"] if self.metric == "loss" else values[self.metric]
        if self.score is not None and not score > self.score + self.lead:
            return False
        self.score, self.epoch = score, epoch
        return True

    def is_out_of_patience(self, epoch: int) -> bool:
        """Whether a run that has come to the end of ``epoch`` is to end."""
        return self.patience is not None and epoch - self.epoch >= self.patience

    def told_of_patience(self, epoch: int, epochs: int) -> str:
        """The line for a run that ends so, after ``epoch`` of ``epochs``."""
        return (
            f"ends after epoch {epoch} of {epochs}: {epoch - self.epoch} in a row were not better "
            f"than epoch {self.epoch} by {self.metric}; --resume auto with a larger patience goes "
            "on"
        )
