"""How sure an accuracy is, and what it is for every class."""

import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

from .answers import Answers
from .confusion import Confusion

_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below it: 95 % within both sides


def wilson(successes: int, total: int) -> Tuple[float, float]:
    """The 95 % interval of a share, both ends from 0 to 1, for ``total`` above 0.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    Unlike the usual plus and minus it holds for small numbers, and near 0 and 100 %.
    """
    share, z2 = successes / total, _Z**2 / total
    middle = (share + z2 / 2) / (1 + z2)
    reach = _Z * math.sqrt(share * (1 - share) / total + z2 / (4 * total)) / (1 + z2)
    return max(0.0, middle - reach), min(1.0, middle + reach)


@dataclass(frozen=True)
class ClassRow:
    """One class of which there are images.

    Args:
        images: how many.
        correct, among_top: how many of them are named right, or are so among the first five.
        named: images of any class that are taken for it.
        mistaken: what its images are most often taken for when they are named wrong.
    """

    index: int
    images: int
    correct: int
    among_top: int
    named: int
    mistaken: Optional[Confusion]

    @property
    def accuracy(self) -> float:
        """From 0 to 1."""
        return self.correct / self.images

    @property
    def precision(self) -> Optional[float]:
        """The share of the images taken for it that are of it; None where there is none."""
        return self.correct / self.named if self.named else None


def class_rows(answers: Answers, confusions: List[Confusion]) -> List[ClassRow]:
    """The classes of which there are images, the lowest accuracy first.

    Args:
        confusions: of the same answers, the most frequent first.
    """
    count = answers.num_classes
    images, named, correct, among_top = (
        np.bincount(values, minlength=count).tolist()
        for values in (
            answers.labels,
            answers.guesses,
            answers.labels[answers.correct],
            answers.labels[answers.among_top],
        )
    )
    mistaken = {confusion.label: confusion for confusion in reversed(confusions)}
    rows = [
        ClassRow(i, images[i], correct[i], among_top[i], named[i], mistaken.get(i))
        for i in range(count)
        if images[i]
    ]
    return sorted(rows, key=lambda row: (row.accuracy, row.index))
