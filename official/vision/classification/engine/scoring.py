"""Scoring a batch: from uint8 images to a network's logits, features, maps and top classes."""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence

import megengine.module as M
import numpy as np

from ..data.normalize import Normalize
from ..errors import TrainingError
from ..text import seven_digits


@dataclass(frozen=True)
class BatchScores:
    """What a network computes for N images.

    Args:
        logits: ``(N, C)`` float32, all finite.
        features: ``(N, K)`` float32, the mean over the maps; None where they are not asked for.
        maps: ``(N, K, h, w)``, the last stage's output; None likewise.
    """

    logits: np.ndarray
    features: Optional[np.ndarray] = None
    maps: Optional[np.ndarray] = None


class Scorer:
    """A network in evaluation mode together with the normalisation of its images.

    Args:
        model: the network, or for logits alone a function that stands for it.
        with_maps: whether features and maps are returned as well as logits.
    """

    def __init__(self, model: Any, normalize: Normalize, with_maps: bool = False):
        self.model = model
        self.normalize = normalize
        self.with_maps = with_maps

    def __call__(self, images: np.ndarray) -> BatchScores:
        """Score ``(N, 3, H, W)`` uint8 images in the network's channel order.

        Raises:
            TrainingError: when a logit is not finite.
        """
        x = self.normalize(images)
        if not self.with_maps:
            return BatchScores(finite(_array(self.model(x))))
        found = self.model.ops.whole(self.model, _with_maps, x)
        logits, features, maps = map(_array, found.values())
        return BatchScores(finite(logits), features, maps)

    def flip_average(self, images: np.ndarray, logits: np.ndarray) -> np.ndarray:
        """Average the probabilities of images, whose logits are known, and of their mirror images.

        Returns:
            ``(N, C)`` float64: the logarithms of the averages, which serve as logits.
        """
        mirrored = finite(_array(self.model(self.normalize(mirror(images)))))
        return np.logaddexp(log_softmax(logits), log_softmax(mirrored)) - np.log(2)


def _with_maps(network: M.Module, x: Any) -> Dict[str, Any]:
    *_, maps = network.extract_features(x).values()
    features = network.ops.mean(maps)
    return {"logits": network.ops.linear(network.fc, features), "features": features, "maps": maps}


def _array(values: Any) -> np.ndarray:
    """Of a tensor, or of an array, which compiled networks may make."""
    return values if isinstance(values, np.ndarray) else values.numpy()


def mirror(images: np.ndarray) -> np.ndarray:
    """``(N, 3, H, W)`` images with left and right exchanged."""
    return np.ascontiguousarray(images[..., ::-1])


def finite(logits: np.ndarray, whose: str = "the network's") -> np.ndarray:
    """``logits``, all of which are finite.

    Raises:
        TrainingError: when one is not; its message begins with ``whose``.
    """
    if not np.isfinite(logits).all():
        raise TrainingError(f"{whose} outputs are not finite: its weights are unusable")
    return logits


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities for ``(N, C)`` logits, in float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def top_classes(logits: np.ndarray, k: int) -> np.ndarray:
    """``(N, k)`` int: the classes with the largest of ``(N, C)`` logits, best first.

    Equal logits are ranked by class number, so that a network that says nothing scores at chance.
    There are C columns where that is less than ``k``.
    """
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class ClassScore:
    """A class and its probability."""

    index: int
    name: str
    probability: float

    def to_dict(self) -> Dict[str, Any]:
        """For JSON: the probability has seven digits, which is what float32 arithmetic gives."""
        return {
            "index": self.index,
            "name": self.name,
            "probability": seven_digits(self.probability),
        }


def top_scores(logits: np.ndarray, names: Sequence[str], k: int) -> List[List[ClassScore]]:
    """For each row of ``(N, C)`` logits its ``k`` top classes, best first."""
    probabilities = np.exp(log_softmax(logits))
    return [
        [ClassScore(index, names[index], float(row[index])) for index in best]
        for row, best in zip(probabilities, top_classes(logits, k).tolist())
    ]
