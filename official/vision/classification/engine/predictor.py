"""Naming what is in a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from ..data.image import read_image
from ..errors import DataError, UsageError, UserError
from .console import Console
from .device import choose_device, prepare, use_device
from .files import check_target
from .inference import Guess, classify
from .network import NetworkConfig, open_network
from .picture import annotate


@dataclass(frozen=True)
class PredictConfig:
    """Which picture, which network, and how the answer is told."""

    image: str
    network: NetworkConfig = NetworkConfig()
    device: str = "auto"
    top_k: int = 5
    json: bool = False
    save_image: Optional[str] = None


def predict(config: PredictConfig) -> int:
    """Print the likeliest classes of one picture; return the exit code.

    Raises:
        UserError: for what the user can mend.
    """
    if config.save_image:
        _check_picture(config.save_image)
    image = read_image(config.image)
    device = choose_device(config.device, 1)
    use_device(device)
    network = open_network(config.network)
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


def describe(rank: int, guess: Guess) -> str:
    """The seed's line."""
    percent = 100 * guess.probability
    return f"{rank}: class = {guess.name:20s} with probability = {percent:4.1f} %"


def _check_picture(path: str) -> None:
    if Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise UsageError(f"--save-image {path}: the name must end in .png or .jpg")
    check_target("--save-image", Path(path))


def _save_picture(path: str, picture: np.ndarray) -> None:
    _, data = cv2.imencode(Path(path).suffix.lower(), picture)
    try:
        Path(path).write_bytes(data.tobytes())
    except OSError as error:
        raise UserError(f"--save-image {path}: cannot be written: {error.strerror}") from None
