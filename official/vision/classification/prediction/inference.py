"""What a network says of a picture."""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import megengine.functional as F
import megengine.module as M
import numpy as np
from megengine import Tensor

from ..data.image import read_image
from ..data.normalize import Normalize
from ..data.transforms import EvalTransform, to_network_layout
from ..errors import DataError, TrainingError, UsageError
from ..zoo.models import get_model
from ..zoo.trained import Network


@dataclass(frozen=True)
class Guess:
    """One class and its probability."""

    index: int
    name: str
    probability: float


def inference_model(
    name_or_model: Union[str, M.Module], image: Union[str, Path, np.ndarray], top_k: int = 5
) -> Dict[str, Any]:
    """Name what is in a picture, as its weights want it prepared.

    Args:
        name_or_model: a network's or a published row's name, whose weights are then loaded; or a
            network that ``get_model(..., pretrained=...)`` has filled, which is left in the mode
            it is in.
        image: the path of a picture, or its pixels as ``(H, W, 3)`` uint8 in BGR.
        top_k: likeliest classes told.

    Returns:
        ``pred_label`` (int), ``pred_class`` and ``pred_score`` of the likeliest class, and
        ``top_k``: a list of the same three for each of the first, best first.

    Raises:
        UsageError: for an unknown name, a network that does not know how its images are
            prepared or has lost its classifier, or a ``top_k`` below 1.
        WeightsError: when the weights cannot be had or do not fit.
        DataError: when the picture cannot be read.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; expected 1 or more")
    pixels = _pixels(image)
    model = name_or_model
    if isinstance(model, str):
        model = get_model(model, pretrained=True)
    with _evaluating(model):
        guesses = classify(_network_of(model), pixels, top_k)
    told = [
        {"pred_label": g.index, "pred_class": g.name, "pred_score": g.probability} for g in guesses
    ]
    return {**told[0], "top_k": told}


@dataclass(frozen=True)
class Judgement:
    """What a network makes of a batch.

    Args:
        probabilities: ``(N, C)`` float32.
        features: ``(N, K)``, the mean over the maps; None where only classes are wanted.
        maps: ``(N, K, h, w)``, what the last stage gives; None likewise.
    """

    probabilities: np.ndarray
    features: Optional[np.ndarray] = None
    maps: Optional[np.ndarray] = None


class Judge:
    """A network that is asked about prepared images.

    Args:
        whole: whether features and maps are wanted as well.
    """

    def __init__(self, network: Network, whole: bool = False):
        self.model = network.model
        ops = getattr(network.model, "ops", None)  # a user's own network may have none
        self.normalize = Normalize(network.preprocess, ops)
        self.whole = whole

    def __call__(self, images: np.ndarray) -> Judgement:
        """Judge ``(N, 3, H, W)`` uint8 images in the network's channel order.

        Raises:
            TrainingError: when the network's outputs are not finite.
        """
        x = self.normalize(images)
        if not self.whole:
            return Judgement(_probabilities(self.model(x)))
        *_, maps = self.model.extract_features(x).values()
        features = maps.mean(axis=(2, 3))
        probabilities = _probabilities(self.model.fc(features))
        return Judgement(probabilities, features.numpy(), maps.numpy())


def _probabilities(logits: Tensor) -> np.ndarray:
    probabilities = F.softmax(logits, axis=1).numpy()
    if not np.isfinite(probabilities).all():
        raise TrainingError("the network's outputs are not finite: its weights are unusable")
    return probabilities


def classify(network: Network, image: np.ndarray, top_k: int = 5) -> List[Guess]:
    """The ``top_k`` likeliest classes of an ``(H, W, 3)`` uint8 BGR image, best first."""
    preprocess = network.preprocess
    prepared = to_network_layout(EvalTransform(preprocess)(image), preprocess.order)
    return likeliest(Judge(network)(prepared[None]).probabilities[0], network.names, top_k)


def likeliest(probabilities: np.ndarray, names: Sequence[str], top_k: int) -> List[Guess]:
    """The first ``top_k`` of ``(C,)`` probabilities, best first; equal ones by class number."""
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    return [Guess(int(i), names[i], float(probabilities[i])) for i in best]


def _pixels(image: Union[str, Path, np.ndarray]) -> np.ndarray:
    if not isinstance(image, np.ndarray):
        return read_image(str(image))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"an image is {image.dtype} of shape {image.shape}; expected uint8 of (H, W, 3), BGR"
        )
    return image


def _network_of(model: M.Module) -> Network:
    config = getattr(model, "pretrained_config", None)
    if config is None:
        raise UsageError(
            "the network does not know how its images are prepared: give a name, or a network "
            "from get_model(..., pretrained=...)"
        )
    count = getattr(getattr(model, "fc", None), "out_features", None)
    if count is None:
        raise UsageError("the network has no classifier, a Linear layer called fc; give it one")
    # A classifier put in later has other classes than the weights had.
    classes = config.classes if config.classes and len(config.classes) == count else None
    return Network(model, replace(config, num_classes=count, classes=classes))


@contextlib.contextmanager
def _evaluating(model: M.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module, frozen ones too, is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.train(training, recursive=False)
