"""Answers to one picture at a time, with pictures of them, for whoever shows them."""

import base64
from dataclasses import dataclass
from typing import List

import cv2
import numpy as np

from ..data.normalize import Normalize
from ..engine.scoring import ClassScore, Scorer, top_scores
from ..zoo.trained import Network
from .drawing import heat_of, overlay
from .images import ImageFile, prepare_image

_QUALITY = 88  # of a JPEG


@dataclass(frozen=True)
class Answer:
    """What a network answers to a picture.

    Args:
        top: the likeliest classes, best first.
        picture: the image, at most 480x960 pixels, as a ``data:`` URI.
        heat: likewise, under the heat maps of the first two classes.
        seen: likewise, what the network is fed.
    """

    top: List[ClassScore]
    picture: str
    heat: List[str]
    seen: str


class Answerer:
    """A network, prepared for its device, that answers to one picture after another."""

    def __init__(self, network: Network, top_k: int = 5):
        self.network = network
        self.top_k = top_k
        normalize = Normalize(network.preprocess, network.model.ops)
        self._score = Scorer(network.model, normalize, with_maps=True)

    def __call__(self, file: ImageFile) -> Answer:
        """Read a picture, prepare it as the weights need it, and name what is in it.

        Raises:
            DataError: when it cannot be read.
        """
        image = prepare_image(file, 0, self.network.preprocess, shown=True)
        scores = self._score(image.pixels[None])
        (top,) = top_scores(scores.logits, self.network.names, self.top_k)
        assert image.picture is not None and scores.maps is not None
        heat = heat_of(scores.maps[0], self.network.model.fc.weight.numpy(), top)
        shown = [overlay(image.picture, one, image.seen) for one in heat]
        pixels = image.pixels.transpose(1, 2, 0)
        seen = pixels if self.network.preprocess.order == "BGR" else pixels[..., ::-1]
        return Answer(top, as_uri(image.picture), list(map(as_uri, shown)), as_uri(seen))


def as_uri(image: np.ndarray) -> str:
    """``(H, W, 3)`` uint8, BGR, as a JPEG within a ``data:`` URI."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image), options)
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
