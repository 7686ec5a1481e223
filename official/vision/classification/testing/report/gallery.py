"""Which images a report shows, how small, and with which words."""

import base64
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from ...data.dataset import ImageDataset
from ...distributed.heartbeat import with_heartbeats
from .answers import Answers
from .statistics import Confusion

FIRST = 24  # shown of all classes
MOST = 120  # with those that are shown when one class is asked for
OF_A_PAIR = 4  # images of each confusion that is listed
_EDGE, _LARGE = 160, 320  # of a thumbnail in pixels, at most; of those that are shown at first
_TINY = 48  # images up to this size are kept as they are
_QUALITY = 80  # of a JPEG
_CLASSES = 3  # with their probabilities below each image


def surest_mistakes(answers: Answers) -> List[int]:
    """The images that are classified wrong, the most confident answer first."""
    wrong = np.flatnonzero(~answers.correct)
    return wrong[np.argsort(-answers.confidence[wrong], kind="stable")].tolist()


def most_uncertain(answers: Answers) -> List[int]:
    """All images, the one whose probabilities have the highest entropy first."""
    return np.argsort(-answers.entropy, kind="stable").tolist()


def surest_right(answers: Answers) -> List[int]:
    """The images that are classified right, the surest of each class first, then all others."""
    right = np.flatnonzero(answers.correct)
    order = right[np.argsort(-answers.confidence[right], kind="stable")]
    _, first = np.unique(answers.labels[order], return_index=True)
    first = np.sort(first)
    return [*order[first].tolist(), *np.delete(order, first).tolist()]


def of_pairs(pairs: Sequence[Confusion], answers: Answers, chosen: Sequence[int]) -> List[int]:
    """Images of each of the confusions, the surest mistakes first, so that there are four of each.

    Args:
        chosen: images that are there already, which are not named again.
    """
    taken = set(chosen)
    further = []
    for pair in pairs:
        both = np.flatnonzero((answers.labels == pair.label) & (answers.guesses == pair.guess))
        order = both[np.argsort(-answers.confidence[both], kind="stable")].tolist()
        further += [index for index in order[:OF_A_PAIR] if index not in taken]
    return further


def choose(order: List[int], answers: Answers) -> List[int]:
    """The first 24 images of ``order``, then the first few of every class; 120 at most.

    What there is room for is shared equally: nine of each class for ten classes, one each for 96,
    none for more. All stay in their order.
    """
    per_class = (MOST - FIRST) // answers.num_classes
    labels = answers.labels.tolist()
    seen: Counter = Counter()
    further = []
    for index in order[FIRST:]:
        if seen[labels[index]] < per_class:
            seen[labels[index]] += 1
            further.append(index)
    return order[:FIRST] + further


def thumbnail(image: np.ndarray, edge: int = _EDGE) -> str:
    """A ``data:`` URI of an ``(H, W, 3)`` uint8 BGR image at up to ``edge`` pixels each way."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= _TINY:
        return _uri("png", cv2.imencode(".png", image)[1])
    scale = min(1.0, edge / longest)
    size = (max(1, int(round(scale * width))), max(1, int(round(scale * height))))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _uri("jpeg", cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])


def _uri(kind: str, data: np.ndarray) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


@dataclass(frozen=True)
class Card:
    """An image with what is said of it.

    Args:
        label, guess: the right class and the first one.
        path: of the image.
        thumbnail: a ``data:`` URI.
        top: the first classes with their probabilities.
        further: it is only shown when one class is asked for.
        heat: another such URI, of the image under what speaks for the guess, or nothing.
    """

    label: int
    guess: int
    path: str
    thumbnail: str
    top: List[Tuple[int, float]]
    further: bool
    heat: str = ""


Heat = Callable[[np.ndarray, int], np.ndarray]  # an image and a class: the image under its heat map


def cards(
    chosen: Sequence[int], folder: ImageDataset, answers: Answers, heat: Optional[Heat] = None
) -> List[Card]:
    """A card for each of the images ``chosen``; those after the 24th wait for the filter.

    Args:
        heat: what draws heat maps, which the first 24 then have.

    Raises:
        DataError: naming the image, when it cannot be read any more.
    """
    return [
        _card(index, place, folder, answers, heat if place < FIRST else None)
        for place, index in enumerate(with_heartbeats(chosen))
    ]


def _card(
    index: int, place: int, folder: ImageDataset, answers: Answers, heat: Optional[Heat]
) -> Card:
    image, guess = folder.read(index), int(answers.guesses[index])
    edge = _LARGE if place < FIRST else _EDGE
    best = zip(answers.classes[index, :_CLASSES], answers.probabilities[index, :_CLASSES])
    return Card(
        int(answers.labels[index]),
        guess,
        relative(folder.paths[index], folder),
        thumbnail(image, edge),
        [(int(number), float(probability)) for number, probability in best],
        place >= FIRST,
        thumbnail(heat(image, guess), edge) if heat else "",
    )


def relative(path: str, folder: ImageDataset) -> str:
    """An image's path below its data set, which says nothing of the machine."""
    inside = os.path.relpath(path, folder.root)
    return Path(path).name if inside.startswith("..") else inside
