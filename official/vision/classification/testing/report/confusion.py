"""Which classes are taken for which."""

from dataclasses import dataclass
from typing import Dict, List, Sequence

import numpy as np

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
