"""What is known of a set of trained weights."""

from dataclasses import dataclass
from typing import Optional

from ...preprocess import Preprocess


@dataclass(frozen=True)
class Card:
    """A set of trained weights and all one must know to use them.

    Args:
        name: the row's name, unique.
        arch: the network function that takes the weights.
        dataset, num_classes: what it was trained on.
        params: trainable parameters, counted.
        macs: multiply-adds of convolutions and linear layers for a crop of ``preprocess``, counted.
        top1, top5: published accuracy in per cent on the validation set, single centre crop.
        url: where the file is.
        digest_prefix: hex digits in the file's name.
        digest_is_sha256: whether the publisher states that its file's sha256 begins with them: a
            file with another is refused. If not, it is tried, as md5 is, and one is told when
            neither fits.
        licence, source: of the weights, and the project that published them.
        preprocess: how its accuracy was measured.
        recipe: the file in ``official/recipes`` that states how they were trained.
        note: where the publisher's own table errs, or does not tell all.
    """

    name: str
    arch: str
    dataset: str
    num_classes: int
    params: int
    macs: float
    top1: Optional[float]
    top5: Optional[float]
    url: str
    digest_prefix: str
    digest_is_sha256: bool
    licence: str
    source: str
    preprocess: Preprocess
    recipe: Optional[str] = None
    note: str = ""
