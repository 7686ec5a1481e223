"""Which images a report shows, how small, and with which words."""

import base64
from collections import Counter
from dataclasses import dataclass
from typing import List, Sequence, Tuple

import cv2
import numpy as np

from ...data.dataset import ImageDataset
from ...distributed.heartbeat import with_heartbeats
from .answers import Answers

FIRST = 24  # shown of all classes
MOST = 120  # with those that are shown when one class is asked for
_EDGE = 160  # of a thumbnail in pixels, at most
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


def thumbnail(image: np.ndarray) -> str:
    """A ``data:`` URI of an ``(H, W, 3)`` uint8 BGR image at up to 160x160 pixels."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest <= _TINY:
        return _uri("png", cv2.imencode(".png", image)[1])
    scale = min(1.0, _EDGE / longest)
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
    """

    label: int
    guess: int
    path: str
    thumbnail: str
    top: List[Tuple[int, float]]
    further: bool


def cards(chosen: Sequence[int], folder: ImageDataset, answers: Answers) -> List[Card]:
    """A card for each of the images ``chosen``; those after the 24th wait for the filter.

    Raises:
        DataError: naming the image, when it cannot be read any more.
    """
    return [
        Card(
            int(answers.labels[index]),
            int(answers.guesses[index]),
            folder.paths[index],
            thumbnail(folder.read(index)),
            [
                (int(number), float(probability))
                for number, probability in zip(
                    answers.classes[index, :_CLASSES], answers.probabilities[index, :_CLASSES]
                )
            ],
            place >= FIRST,
        )
        for place, index in enumerate(with_heartbeats(chosen))
    ]
