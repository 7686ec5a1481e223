"""What a network says of one image, and how that is told in lines and in JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Protocol

import numpy as np

from ..engine.console import Console
from ..text import printable
from .image_reader import PreparedImage
from .inference import Guess


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of an image, best first.

    Args:
        top: of the image as it is.
        tta: of the mean of the image's and its mirror image's probabilities; None where that is
            not asked for.
        feature: ``(K,)``, pooled; None likewise.
        heat: ``(h, w)``, Grad-CAM of the likeliest class; None likewise.
    """

    image: PreparedImage
    top: List[Guess]
    tta: Optional[List[Guess]] = None
    feature: Optional[np.ndarray] = None
    heat: Optional[np.ndarray] = None

    def to_dict(self) -> Dict[str, Any]:
        answer = {"image": self.image.file.path, "top": [asdict(guess) for guess in self.top]}
        if self.tta is not None:
            answer["tta"] = [asdict(guess) for guess in self.tta]
        return answer


def describe(rank: int, guess: Guess) -> str:
    """The seed's line."""
    percent = 100 * guess.probability
    return f"{rank}: class = {guess.name:20s} with probability = {percent:4.1f} %"


class Sink(Protocol):
    """Where predictions go, in the images' order."""

    def add(self, prediction: Prediction) -> None:
        """Tell what the network says of the next image."""

    def close(self) -> None:
        """There are no more images."""

    def abandon(self) -> None:
        """There are more images, but an error or the user has put an end to it."""


class Lines:
    """One line per guess on the console, below the image's name where there are several."""

    def __init__(self, console: Console, single: bool):
        self.console = console
        self.single = single

    def add(self, prediction: Prediction) -> None:
        """Print the lines of the next image."""
        if not self.single:
            self.console.line(f"{printable(prediction.image.file.path)}:")
        self._tell(prediction.top)
        if prediction.tta is not None:
            self.console.line("mean with the mirrored image:")
            self._tell(prediction.tta)

    def close(self) -> None:
        """All lines are there."""

    abandon = close

    def _tell(self, guesses: List[Guess]) -> None:
        for rank, guess in enumerate(guesses):
            self.console.line(describe(rank, guess))


class JsonOnConsole:
    """One object on the console, or a list of them where there are several images."""

    def __init__(self, console: Console, single: bool):
        self.console = console
        self.single = single
        self._before = "["
        self._held: Optional[str] = None  # what follows it is not known yet: a comma, or the end

    def add(self, prediction: Prediction) -> None:
        """Print the object of the next image."""
        text = json.dumps(prediction.to_dict())
        if self.single:
            self.console.line(text)
            return
        if self._held is not None:
            self.console.line(f"{self._before}{self._held},")
            self._before = ""
        self._held = text

    def abandon(self) -> None:
        """The list stays open: half a list is not to be taken for one."""

    def close(self) -> None:
        """Print the end of the list."""
        if not self.single:
            self.console.line(f"{self._before}{self._held or ''}]")
