"""How far a network's probabilities can be believed, and one number that mends them.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599): expected
calibration error in section 2, temperature scaling in section 4.2.
"""

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from ..data.loader import Batch
from ..distributed.collectives import sum_over_ranks
from ..engine.evaluation import cross_entropy, rank_of_label
from ..errors import DataError

BINS = 15  # as in Guo et al.
_MOST = 1000.0  # temperatures are looked for from 1 / 1000 to 1000
_ROWS = 4096  # of logits that are worked on at once

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Calibration:
    """A temperature, fitted on the images of even number and judged on those of odd number.

    Args:
        temperature: what logits are divided by.
        fitted_on, judged_on: numbers of images.
        ece_before, ece_after: expected calibration error of the latter, from 0 to 1.
        loss_before, loss_after: their mean cross-entropy.
    """

    temperature: float
    fitted_on: int
    judged_on: int
    bins: int
    ece_before: float
    ece_after: float
    loss_before: float
    loss_after: float

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def lines(self) -> List[str]:
        """What is told of it."""
        return [
            f"Temperature {self.temperature:.4f}, fitted on every other image ({self.fitted_on})",
            f"ECE {100 * self.ece_before:.3f} % before, {100 * self.ece_after:.3f} % after, on the "
            f"others ({self.judged_on}; {self.bins} bins)",
        ]


class LogitsOfAll:
    """Collects logits, of which every rank has some.

    Args:
        total: images of all ranks.

    Raises:
        DataError: when there are not enough images for two halves.
    """

    def __init__(self, total: int, num_classes: int):
        if total < 2:
            raise DataError(f"--calibrate needs two images or more, but there is {total}")
        self._logits = np.zeros((total, num_classes), np.float32)
        self._labels = np.zeros(total, np.int32)

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Note the ``(N, C)`` logits of a batch of this rank."""
        self._logits[batch.indices] = logits
        self._labels[batch.indices] = batch.labels

    def gather(self) -> Tuple[np.ndarray, np.ndarray]:
        """The ``(total, C)`` logits and the labels of all ranks, in the images' order.

        Every rank fills its rows among zeros, so that the sums are exact, in any order.
        """
        for rows in _blocks(len(self._labels)):
            self._logits[rows] = sum_over_ranks(self._logits[rows])
        return self._logits, sum_over_ranks(self._labels)


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit a temperature on the rows of even number, and judge it on the others.

    Args:
        logits: ``(N, C)``, N at least 2.
        labels: ``(N,)`` int.
    """
    temperature = fit_temperature(logits[0::2], labels[0::2])
    if temperature in (_MOST, 1 / _MOST):
        logger.warning(
            "--calibrate: no temperature is best, as for a network that names every image right; "
            "%g is the last one that was looked at",
            temperature,
        )
    others, answers = logits[1::2], labels[1::2]
    correct = rank_of_label(others, answers) < 1
    errors, losses = [], []
    for divisor in (1.0, temperature):
        errors.append(expected_calibration_error(confidences(others, divisor), correct))
        losses.append(mean_loss(others, answers, divisor))
    return Calibration(temperature, len(logits) - len(others), len(others), BINS, *errors, *losses)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature with the least cross-entropy on ``(N, C)`` logits; 0.001 to 1000.

    The loss is convex in the inverse s of the temperature; the zero of its slope is found by
    Newton's method within bounds that close in on it.
    """
    low, high = 1 / _MOST, _MOST
    if _slope(logits, labels, high)[0] <= 0:
        return 1 / high
    if _slope(logits, labels, low)[0] >= 0:
        return 1 / low
    s = 1.0
    for _ in range(200):
        slope, curvature = _slope(logits, labels, s)
        low, high = (low, s) if slope > 0 else (s, high)
        newton = s - slope / curvature if curvature > 0 else high
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - s) <= 1e-9 * s:
            break
        s = following
    return 1 / s


def _slope(logits: np.ndarray, labels: np.ndarray, s: float) -> Tuple[float, float]:
    """First and second derivative by s of the cross-entropy of ``s * logits``, summed.

    They are the mean of the logits under their own softmax, less the right class's logit, and the
    variance likewise.
    """
    first = second = 0.0
    for rows in _blocks(len(labels)):
        part = logits[rows].astype(np.float64)
        part -= part.max(1, keepdims=True)
        weights = np.exp(s * part)
        weights /= weights.sum(1, keepdims=True)
        mean = (weights * part).sum(1)
        first += float((mean - part[np.arange(len(part)), labels[rows]]).sum())
        second += float((weights * (part - mean[:, None]) ** 2).sum())
    return first, second


def confidences(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``(N,)`` float64: the likeliest class's probability, for ``(N, C)`` logits."""
    result = np.empty(len(logits))
    for rows in _blocks(len(logits)):
        part = logits[rows].astype(np.float64)
        part -= part.max(1, keepdims=True)
        result[rows] = 1 / np.exp(part / temperature).sum(1)
    return result


def mean_loss(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> float:
    """Mean cross-entropy of ``(N, C)`` logits that are divided by ``temperature``."""
    losses = [
        cross_entropy(logits[rows].astype(np.float64) / temperature, labels[rows]).sum()
        for rows in _blocks(len(labels))
    ]
    return float(sum(losses)) / len(labels)


@dataclass(frozen=True)
class Reliability:
    """Images by their confidence, in bins of equal width from 0 to 1 (Guo et al., section 2).

    Args:
        counts: ``(B,)`` int, images in each bin.
        correct: ``(B,)`` float64, how many of them are right.
        confidence: ``(B,)`` float64, the sum of their confidences.
    """

    counts: np.ndarray
    correct: np.ndarray
    confidence: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error (equation 3), from 0 to 1."""
        return float(np.abs(self.correct - self.confidence).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort images into bins.

    Args:
        confidence: ``(N,)``, above 0 and at most 1; bin m holds those from (m - 1) / bins, which
            is not in it, to m / bins, which is.
        correct: ``(N,)`` bool.
    """
    confidence = np.asarray(confidence, np.float64)
    chosen = np.searchsorted(np.arange(1, bins) / bins, confidence)
    return Reliability(
        np.bincount(chosen, minlength=bins),
        np.bincount(chosen, weights=correct, minlength=bins),
        np.bincount(chosen, weights=confidence, minlength=bins),
    )


def expected_calibration_error(
    confidence: np.ndarray, correct: np.ndarray, bins: int = BINS
) -> float:
    """ECE (Guo et al., equation 3), from 0 to 1; the arguments are those of ``reliability``."""
    return reliability(confidence, correct, bins).error


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)
