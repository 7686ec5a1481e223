"""What is known of a set of trained weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ...preprocess import Preprocess

_ROOT = Path(__file__).resolve().parents[5]  # the folder that has official/


@dataclass(frozen=True)
class Row:
    """A set of trained weights and all one must know to use them.

    Args:
        name: the row's name, unique.
        arch: the network function that takes the weights.
        dataset, num_classes: what it was trained on.
        params: trainable parameters, counted.
        macs: multiply-adds of convolutions and linear layers for a crop of ``preprocess``, counted.
        top1, top5: published accuracy in per cent on the validation set, single centre crop.
        url: where the file is; for one that comes along with the code, its path in the project.
        digest_prefix: hex digits in the file's name; all of a file's that comes along.
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

    @property
    def shipped(self) -> Optional[Path]:
        """The file itself, where it comes along with the code."""
        return None if "://" in self.url else _ROOT / self.url
