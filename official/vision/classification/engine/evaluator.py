"""Judging a network: integers counted over every image once."""

from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, Iterable, Optional

import megengine.module as M
import numpy as np

from ..data.loader import Batch
from ..data.normalize import Normalize
from ..distributed.collectives import sum_over_ranks
from ..errors import TrainingError


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


def evaluate(
    model: M.Module,
    batches: Iterable[Batch],
    normalize: Normalize,
    total: int,
    report: Optional[Callable[[Result], None]] = None,
) -> Result:
    """Count over all ranks; ``batches`` are this rank's share of ``total`` images.

    Args:
        report: called with the result of every single batch of this rank.

    Raises:
        TrainingError: when the network's outputs are not finite, or the images of all ranks do
            not add up to ``total``.
    """
    model.eval()
    counts = np.zeros(3, np.int32)  # top-1, top-5, images
    loss_sum = 0.0
    for batch in batches:
        logits = model(normalize(batch.images)).numpy()
        if not np.isfinite(logits).all():
            raise TrainingError("the network's outputs are not finite: its weights are unusable")
        ranks = rank_of_label(logits, batch.labels)
        top1, top5, seen = int((ranks < 1).sum()), int((ranks < 5).sum()), len(batch)
        loss = float(cross_entropy(logits, batch.labels).sum())
        counts += (top1, top5, seen)
        loss_sum += loss
        if report:
            report(Result(top1, top5, seen, loss / seen))
    top1, top5, seen = sum_over_ranks(counts).tolist()
    (loss_sum,) = sum_over_ranks(np.array([loss_sum], np.float32)).tolist()
    if seen != total:
        raise TrainingError(f"evaluation saw {seen} images of {total}: the data set has changed")
    return Result(top1, top5, total, loss_sum / total)


def rank_of_label(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the right one, for ``(N, C)`` logits.

    Equal logits are ranked by class number, so that a network that says nothing scores at chance.
    """
    own = logits[np.arange(len(labels)), labels][:, None]
    before = np.arange(logits.shape[1])[None, :] < labels[:, None]
    return (logits > own).sum(1) + ((logits == own) & before).sum(1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``(N,)`` negative log-likelihoods in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(1))
    return log_sum - shifted[np.arange(len(labels)), labels]
