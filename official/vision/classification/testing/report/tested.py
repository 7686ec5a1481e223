"""What a report is made of."""

from dataclasses import dataclass
from typing import Dict, Sequence

from ...data.dataset import ImageDataset
from .answers import Answers


@dataclass(frozen=True)
class Tested:
    """A test to be told of.

    Args:
        folder: its images, with labels that are numbers among the logits.
        answers: in the order of these images.
        loss: mean cross-entropy.
        title: what was tested on what, in a few words.
        about: what was tested and on what, by name.
        remarks: further lines on the result.
    """

    folder: ImageDataset
    answers: Answers
    loss: float
    title: str
    about: Dict[str, str]
    remarks: Sequence[str] = ()
