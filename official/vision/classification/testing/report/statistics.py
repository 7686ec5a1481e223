"""Accuracy by class with its uncertainty, and which classes are taken for which."""

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ...engine.class_scores import wilson
from .answers import Answers


@dataclass(frozen=True)
class Confusion:
    """Images of class ``label`` that are taken for class ``guess``.

    Args:
        count: how many.
        images: how many there are of ``label``.
    """

    label: int
    guess: int
    count: int
    images: int

    @property
    def share(self) -> float:
        """Of the class, from 0 to 1."""
        return self.count / self.images


def confusions(answers: Answers) -> List[Confusion]:
    """All pairs of classes that are confused, the most frequent first.

    Among equals the one comes first that is a larger share of its class, then the lower number.
    Only pairs that occur take memory, however many classes there are.
    """
    images = np.bincount(answers.labels, minlength=answers.num_classes)
    wrong = ~answers.correct
    codes = answers.labels[wrong].astype(np.int64) * answers.num_classes + answers.guesses[wrong]
    pairs, counts = np.unique(codes, return_counts=True)
    labels, guesses = np.divmod(pairs, answers.num_classes)
    of_class = images[labels]
    order = np.lexsort((pairs, of_class, -counts))
    columns = (labels[order], guesses[order], counts[order], of_class[order])
    return [Confusion(*map(int, row)) for row in zip(*columns)]


def confused_classes(pairs: Sequence[Confusion], most: int) -> List[int]:
    """Up to ``most`` classes of the most frequent pairs; classes of linked pairs are neighbours."""
    groups: List[List[int]] = []
    for pair in pairs:
        both = (pair.label, pair.guess)
        linked = [group for group in groups if any(index in group for index in both)]
        joined = [index for group in linked for index in group]
        joined += [index for index in both if index not in joined]
        others = [group for group in groups if group not in linked]
        if len(joined) + sum(map(len, others)) > most:
            break
        place = groups.index(linked[0]) if linked else len(groups)
        groups = [*others[:place], joined, *others[place:]]
    groups.sort(key=len, reverse=True)
    return [index for group in groups for index in group]


def matrix(answers: Answers, classes: Sequence[int]) -> np.ndarray:
    """``(K, K + 1)`` counts: row's class named column's class; the last column is any other."""
    place: Dict[int, int] = {index: row for row, index in enumerate(classes)}
    size = len(classes)
    to_place = np.full(answers.num_classes, size)
    to_place[list(place)] = list(place.values())
    rows, columns = to_place[answers.labels], to_place[answers.guesses]
    codes = rows * (size + 1) + columns
    counts = np.bincount(codes, minlength=(size + 1) ** 2).reshape(size + 1, size + 1)
    return counts[:size]


def density(pairs: Sequence[Confusion], num_classes: int, cells: int) -> np.ndarray:
    """``(B, B)`` counts of wrong answers with neighbouring classes in one cell; B up to ``cells``.

    Cell (i, j) counts the images of the i-th block of classes that are taken for the j-th.
    """
    width = -(-num_classes // cells)
    size = -(-num_classes // width)
    counts = np.zeros((size, size), np.int64)
    for pair in pairs:
        counts[pair.label // width, pair.guess // width] += pair.count
    return counts


@dataclass(frozen=True)
class ClassRow:
    """One class of which there are images.

    Args:
        images: how many.
        correct, among_top: how many of them are classified right, or have the right class
            among the first five.
        named: images of any class that are taken for it.
        mistaken: what its images are most often taken for when they are classified wrong.
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
    def top5(self) -> float:
        """The share of its images with the right class among the first five, from 0 to 1."""
        return self.among_top / self.images

    @property
    def interval(self) -> Tuple[float, float]:
        """The 95 % interval of the accuracy."""
        return wilson(self.correct, self.images)

    @property
    def precision(self) -> Optional[float]:
        """The share of the images taken for it that are of it; None where there is none."""
        return self.correct / self.named if self.named else None

    @property
    def f1(self) -> float:
        """The harmonic mean of accuracy and precision, from 0 to 1."""
        return 2 * self.correct / (self.images + self.named)


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
