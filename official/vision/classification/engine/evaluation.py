"""Evaluating a network: integers counted over every image once."""

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, Optional, Sequence

import megengine.module as M
import numpy as np

from ..data.loader import Batch
from ..data.normalize import Normalize
from ..distributed.collectives import sum_over_ranks
from ..errors import TrainingError
from .scoring import Scorer, log_softmax


@dataclass(frozen=True)
class Result:
    """How many images had their class first, or among the first five."""

    top1_correct: int
    top5_correct: int
    total: int
    loss: float  # mean cross-entropy

    @property
    def top1(self) -> float:
        """Per cent."""
        return 100.0 * self.top1_correct / self.total

    @property
    def top5(self) -> float:
        """Per cent."""
        return 100.0 * self.top5_correct / self.total

    def to_dict(self) -> Dict[str, Any]:
        return {**asdict(self), "top1": self.top1, "top5": self.top5}


class Counter:
    """Counts the right answers of this rank, batch by batch."""

    def __init__(self) -> None:
        self._counts = np.zeros(3, np.int32)  # top-1, top-5, images
        self._loss_sum = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> Result:
        """Count a batch of ``(N, C)`` logits; return the result of it alone."""
        ranks = rank_of_label(logits, labels)
        top1, top5, seen = int((ranks < 1).sum()), int((ranks < 5).sum()), len(labels)
        loss = float(cross_entropy(logits, labels).sum())
        self._counts += (top1, top5, seen)
        self._loss_sum += loss
        return Result(top1, top5, seen, loss / seen)

    def result(self, total: int) -> Result:
        """What all ranks have counted.

        Raises:
            TrainingError: when their images do not add up to ``total``.
        """
        top1, top5, seen = sum_over_ranks(self._counts).tolist()
        (loss_sum,) = sum_over_ranks(np.array([self._loss_sum], np.float32)).tolist()
        if seen != total:
            raise TrainingError(
                f"evaluation saw {seen} images of {total}: the data set has changed"
            )
        return Result(top1, top5, total, loss_sum / total)


def evaluate(
    model: M.Module,
    batches: Iterable[Batch],
    normalize: Normalize,
    total: int,
    report: Optional[Callable[[Result], None]] = None,
    watchers: Sequence[Callable[[Batch, np.ndarray], None]] = (),
) -> Result:
    """Count over all ranks; ``batches`` are this rank's share of ``total`` images.

    Args:
        report: called with the result of every single batch of this rank.
        watchers: called with every batch of this rank and its ``(N, C)`` logits.

    Raises:
        TrainingError: when the network's outputs are not finite, or the images of all ranks do
            not add up to ``total``.
    """
    model.eval()
    score = Scorer(model, normalize)
    counter = Counter()
    for batch in batches:
        logits = score(batch.images).logits
        result = counter.add(logits, batch.labels)
        for watch in watchers:
            watch(batch, logits)
        if report:
            report(result)
    return counter.result(total)


class FlipTta:
    """Counts by the mean probabilities of each image and its mirror image, beside ``evaluate``."""

    def __init__(self, model: M.Module, normalize: Normalize):
        self.scorer = Scorer(model, normalize)
        self.counter = Counter()

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Count a batch, whose ``(N, C)`` logits are known."""
        self.counter.add(self.scorer.flip_average(batch.images, logits), batch.labels)


def rank_of_label(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the right one, for ``(N, C)`` logits.

    Equal logits are ranked by class number, as by ``top_classes``.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1])[None, :] < labels[:, None]
    return (logits > own).sum(1) + ((logits == own) & before).sum(1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``(N,)`` negative log-likelihoods in float64."""
    return -log_softmax(logits)[np.arange(len(labels)), labels]
