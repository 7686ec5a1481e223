"""What is known of a set of trained weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Optional, Tuple

from ...preprocess import Preprocess

_ROOT = Path(__file__).resolve().parents[5]  # the folder that has official/


def licence_notice(name: str, licence: str) -> Optional[str]:
    """A line to show whoever uses weights; None for a licence that forbids nothing here."""
    if "-NC" not in licence:
        return None
    return f"{name}: the licence of these weights, {licence}, forbids commercial use"


@dataclass(frozen=True)
class Result:
    """Published accuracies in per cent for images that are prepared in one way, centre crop.

    Args:
        preprocess: how the images were prepared.
        macs: multiply-adds of convolutions and linear layers for such an image, counted.
        top1, top5: on the validation set of the data set; None where not published.
        others: top-1 accuracy on other test sets, by the names of ``testing.benchmarks``:
            ``real, v2, a, r, sketch``.
    """

    preprocess: Preprocess
    macs: float
    top1: Optional[float]
    top5: Optional[float]
    others: Mapping[str, float] = field(default_factory=dict, hash=False)


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
        digest_prefix: hex digits that the publisher states, in the file's name or on its page: the
            first of them or all 64; all of a file's that comes along; empty where there are none.
        digest_is_sha256: whether the publisher states that its file's sha256 begins with them: a
            file with another is refused. If not, it is tried, as md5 is, and one is told when
            neither fits.
        licence: of the weights, an SPDX identifier.
        source: the project that published them.
        preprocess: how its accuracy was measured.
        recipe: the file in ``official/recipes`` that states how they were trained.
        note: where the publisher's own table errs, or does not tell all.
        others: top-1 accuracy on other test sets, as in Result.
        more: accuracies at other sizes of the images, such as that of its training.
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
    others: Mapping[str, float] = field(default_factory=dict, hash=False)
    more: Tuple[Result, ...] = ()

    @property
    def results(self) -> Tuple[Result, ...]:
        """All published accuracies, those for ``preprocess`` first."""
        first = Result(self.preprocess, self.macs, self.top1, self.top5, self.others)
        return (first, *self.more)

    @property
    def shipped(self) -> Optional[Path]:
        """The file itself, where it comes along with the code."""
        return None if "://" in self.url else _ROOT / self.url

    @property
    def commercial(self) -> bool:
        """Whether the licence allows commercial use."""
        return self.licence_notice is None

    @property
    def licence_notice(self) -> Optional[str]:
        """A line to show whoever uses the weights; None for a licence that forbids nothing here."""
        return licence_notice(self.name, self.licence)
