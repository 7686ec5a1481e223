"""A linear probe: the best classifier on a network's features as they are.

The features of every image, centre crop and mirror image, are computed once. The classifier is
multinomial logistic regression with an L2 penalty, whose strength is the one with the least loss on
the validation images. There is no learning rate in it: the problem is convex, and L-BFGS (Liu and
Nocedal, 1989) solves it in seconds.
"""

from dataclasses import dataclass
from functools import partial
from typing import Callable, Iterable, List, Tuple

import megengine.module as M
import numpy as np

from ..data.dataset import ImageDataset
from ..data.loader import Batch
from ..data.normalize import Normalize
from ..distributed.collectives import sum_over_ranks, world_size
from ..distributed.heartbeat import with_heartbeats
from ..engine.console import Console
from ..engine.evaluation import cross_entropy
from ..engine.scoring import Scorer, mirror
from .images import RunImages

PENALTIES = tuple(10 ** (-power / 2) for power in range(2, 13))  # 0.1 to 1e-6
PATIENCE = 2  # weaker penalties in a row that did not help
MEMORY = 10  # steps that L-BFGS remembers
TOLERANCE = 1e-5  # of the gradient's largest element


@dataclass(frozen=True)
class Features:
    """Of a data set's images: ``(N, K)`` features, float32, and ``(N,)`` labels."""

    values: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Probe:
    """A linear classifier on features.

    Args:
        weight, bias: ``(C, K)`` and ``(C,)`` float32.
        penalty: the strength that was chosen.
        loss: its mean cross-entropy on the validation images.
    """

    weight: np.ndarray
    bias: np.ndarray
    penalty: float
    loss: float


def probe_of(model: M.Module, normalize: Normalize, images: RunImages, console: Console) -> Probe:
    """The best linear classifier on a network's features of a run's images."""

    def features(split: ImageDataset, mirrored: bool) -> Features:
        console.start_bar("Features", len(split))
        try:
            return features_of(
                *(model, with_heartbeats(images.testing(split)), normalize, len(split), mirrored),
                progress=lambda count: console.advance(count * world_size()),
            )
        finally:
            console.stop_bar()

    train = features(images.data.train, images.recipe.augment.flip)
    return fit_probe(train, features(images.data.val, False), len(images.data.train.classes))


def features_of(
    model: M.Module,
    batches: Iterable[Batch],
    normalize: Normalize,
    total: int,
    mirrored: bool,
    progress: Callable[[int], None],
) -> Features:
    """The features of all images, of which ``batches`` are this rank's.

    Args:
        mirrored: whether those of the mirror images follow, with the same labels.
        progress: called with the number of images of every batch.
    """
    model.eval()
    score = Scorer(model, normalize, with_maps=True)
    width = model.fc.in_features
    values = np.zeros((1 + mirrored, total, width), np.float32)
    labels = np.zeros(total, np.int32)
    for batch in batches:
        labels[batch.indices] = batch.labels
        for side in range(1 + mirrored):
            images = mirror(batch.images) if side else batch.images
            values[side, batch.indices] = score(images).features
        progress(len(batch))
    # Every rank fills its rows among zeros, so that the sums are exact, in any order.
    values = sum_over_ranks(values).reshape(-1, width)
    return Features(values, np.tile(sum_over_ranks(labels), 1 + mirrored))


def fit_probe(train: Features, val: Features, num_classes: int) -> Probe:
    """The classifier with the least loss on ``val``, over penalties from strong to weak."""
    mean = train.values.mean(0, dtype=np.float64)
    scale = np.sqrt(((train.values - mean) ** 2).sum(1).mean()) or 1.0
    inputs = _with_one((train.values - mean) / scale)
    others = _with_one((val.values - mean) / scale)
    solution = np.zeros((inputs.shape[1], num_classes))
    found: List[Tuple[float, float, np.ndarray]] = []
    for penalty in PENALTIES:
        solution = minimise(partial(_loss, inputs, train.labels, penalty), solution)
        found.append(
            (float(cross_entropy(others @ solution, val.labels).mean()), penalty, solution)
        )
        best = min(range(len(found)), key=lambda index: found[index][0])
        if len(found) - best > PATIENCE:
            break
    loss, penalty, solution = found[best]
    weight = solution[:-1].T / scale
    bias = solution[-1] - weight @ mean
    return Probe(weight.astype(np.float32), bias.astype(np.float32), penalty, loss)


def _with_one(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.ones((len(values), 1))], axis=1)


def _loss(
    inputs: np.ndarray, labels: np.ndarray, penalty: float, weights: np.ndarray
) -> Tuple[float, np.ndarray]:
    """Mean cross-entropy and half the penalty on all weights but the bias; its gradient."""
    logits = inputs @ weights
    logits -= logits.max(1, keepdims=True)
    shares = np.exp(logits)
    sums = shares.sum(1, keepdims=True)
    rows = np.arange(len(labels))
    loss = float((np.log(sums[:, 0]) - logits[rows, labels]).mean())
    shares /= sums
    shares[rows, labels] -= 1
    gradient = inputs.T @ shares / len(labels)
    gradient[:-1] += penalty * weights[:-1]
    return loss + penalty / 2 * float((weights[:-1] ** 2).sum()), gradient


def minimise(
    function: Callable[[np.ndarray], Tuple[float, np.ndarray]], x: np.ndarray, steps: int = 200
) -> np.ndarray:
    """Where a smooth convex function, given with its gradient, is least: L-BFGS from ``x``."""
    value, gradient = function(x)
    past: List[Tuple[np.ndarray, np.ndarray]] = []  # changes of x and of the gradient
    for _ in range(steps):
        if np.abs(gradient).max() < TOLERANCE:
            break
        direction = -_times_inverse_hessian(gradient, past)
        slope = float((gradient * direction).sum())
        length = 1.0 if past else min(1.0, 1.0 / np.abs(gradient).sum())
        while True:  # Armijo's rule
            new = x + length * direction
            new_value, new_gradient = function(new)
            if new_value <= value + 1e-4 * length * slope or length < 1e-10:
                break
            length /= 2
        change = (new - x, new_gradient - gradient)
        if (change[0] * change[1]).sum() > 0:
            past = [*past, change][-MEMORY:]
        x, value, gradient = new, new_value, new_gradient
    return x


def _times_inverse_hessian(
    gradient: np.ndarray, past: List[Tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """The two loops of Nocedal (1980)."""
    result, shares = gradient.copy(), []
    for dx, dg in reversed(past):
        shares.append((dx * result).sum() / (dx * dg).sum())
        result -= shares[-1] * dg
    if past:
        dx, dg = past[-1]
        result *= (dx * dg).sum() / (dg * dg).sum()
    for (dx, dg), share in zip(past, reversed(shares)):
        result += (share - (dg * result).sum() / (dx * dg).sum()) * dx
    return result
