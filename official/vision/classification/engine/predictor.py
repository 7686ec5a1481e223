"""Naming what is in a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import cv2
import megengine.functional as F
import numpy as np

from ..data.image import read_image
from ..data.normalize import Normalize
from ..data.transforms import EvalTransform, to_network_layout
from ..errors import DataError, TrainingError, UserError
from .console import Console
from .device import choose_device, prepare, use_device
from .network import Network, open_network
from .picture import annotate


@dataclass(frozen=True)
class Guess:
    """One class and its probability."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True)
class PredictConfig:
    """Which picture, which network, and how the answer is told."""

    image: str
    arch: Optional[str] = None
    model: Optional[str] = None
    num_classes: Optional[int] = None
    preprocess: Optional[Dict[str, Any]] = None  # in place of the weights' own
    device: str = "auto"
    top_k: int = 5
    json: bool = False
    save_image: Optional[str] = None


def predict(config: PredictConfig) -> int:
    """Print the likeliest classes of one picture; return the exit code.

    Raises:
        UserError: for what the user can mend.
    """
    image = read_image(config.image)
    device = choose_device(config.device, 1)
    use_device(device)
    network = open_network(config.arch, config.model, config.num_classes, config.preprocess)
    prepare(network.model, device)
    try:
        guesses = classify(network, image, config.top_k)
    except DataError as error:
        raise DataError(f"{config.image}: {error}") from None
    console = Console()
    if config.json:
        answer = {"image": config.image, "top": [asdict(guess) for guess in guesses]}
        console.line(json.dumps(answer))
    else:
        for rank, guess in enumerate(guesses):
            console.line(describe(rank, guess))
    if config.save_image:
        _save_picture(config.save_image, annotate(image, guesses))
        if not config.json:
            console.line(f"picture: {config.save_image}")
    return 0


def classify(network: Network, image: np.ndarray, top_k: int = 5) -> List[Guess]:
    """The ``top_k`` likeliest classes of an ``(H, W, 3)`` uint8 BGR image, best first."""
    preprocess = network.preprocess
    prepared = to_network_layout(EvalTransform(preprocess)(image), preprocess.order)
    logits = network.model(Normalize(preprocess)(prepared[None]))
    probabilities = F.softmax(logits, axis=1).numpy()[0]
    if not np.isfinite(probabilities).all():
        raise TrainingError("the network's outputs are not finite: its weights are unusable")
    best = np.argsort(-probabilities, kind="stable")[:top_k]
    names = network.names
    return [Guess(int(i), names[i], float(probabilities[i])) for i in best]


def describe(rank: int, guess: Guess) -> str:
    """The seed's line."""
    percent = 100 * guess.probability
    return f"{rank}: class = {guess.name:20s} with probability = {percent:4.1f} %"


def _save_picture(path: str, picture: np.ndarray) -> None:
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg"):
        raise UserError(f"--save-image {path}: the name must end in .png or .jpg")
    _, data = cv2.imencode(suffix, picture)
    try:
        Path(path).write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"--save-image {path}: cannot be written: {error.strerror}") from None
