"""The published weights as a table to choose from."""

from fnmatch import fnmatch
from typing import Iterable, List, NamedTuple, Optional, Sequence

from ..errors import UsageError
from ..resnet import ARCHS
from ..resnet.complexity import complexity, without_weights
from ..text import aligned
from .models import image_size
from .rows import ROWS, Row, default_row

HEAD = ("row", "network", "data", "top-1", "px", "params (M)", "mult-adds (G)", "licence")
_LEFT = (0, 1, 2, 7)  # columns of words


class Listed(NamedTuple):
    """A line of the table: a published row, or a network that nobody publishes weights of.

    Args:
        name: what ``get_model`` and ``--arch`` take.
        is_default: these are what ``pretrained=True`` means.
        px: edge of the square that the network sees, to which ``macs`` and ``top1`` belong.
    """

    name: str
    network: str
    dataset: str
    top1: Optional[float]
    px: int
    params: int
    macs: float
    licence: str
    is_default: bool


def listed(pattern: Optional[str] = None, min_top1: Optional[float] = None) -> List[Listed]:
    """The rows, by data set and then by accuracy, and the networks without any at the end.

    Args:
        pattern: a shell pattern for the row's or the network's name.
        min_top1: per cent; what is not as accurate is left out, also what has no figure.
    """
    # ROWS has the data sets in the order in which they came to be here, ImageNet first.
    datasets = list(dict.fromkeys(row.dataset for row in ROWS))
    rows = sorted(
        (row for row in ROWS if _matches(pattern, row.name, row.arch)),
        key=lambda row: (datasets.index(row.dataset), -(row.top1 or 0.0), row.macs),
    )
    found = [_of_row(row) for row in rows]
    with_rows = {row.arch for row in ROWS}
    if min_top1 is not None:
        return [each for each in found if each.top1 is not None and each.top1 >= min_top1]
    others = [arch for arch in ARCHS if arch not in with_rows and _matches(pattern, arch)]
    return found + [_of_network(arch) for arch in others]


def table(lines: Sequence[Listed]) -> Iterable[str]:
    """Lines for a terminal; an asterisk marks the default rows."""
    return aligned([HEAD, *map(_cells, lines)], left=_LEFT)


def lines_for(pattern: Optional[str], min_top1: Optional[float]) -> Iterable[str]:
    """What ``--list`` prints.

    Raises:
        UsageError: when nothing fits.
    """
    found = listed(pattern, min_top1)
    if not found:
        accurate = "" if min_top1 is None else f" of at least {min_top1:g} % top-1"
        raise UsageError(f"--list {pattern or '*'}: there is no such row or network{accurate}")
    yield from table(found)
    yield ""
    if any(each.is_default for each in found):
        yield "* what the network's name alone means. docs/weights.md has all figures."


def _cells(each: Listed) -> Sequence[str]:
    return (
        each.name + (" *" if each.is_default else ""),
        each.network,
        each.dataset,
        "" if each.top1 is None else f"{each.top1:.2f}",
        str(each.px),
        f"{each.params / 1e6:.2f}",
        f"{each.macs / 1e9:.3g}",
        each.licence,
    )


def _of_row(row: Row) -> Listed:
    return Listed(
        row.name,
        row.arch,
        row.dataset,
        row.top1,
        row.preprocess.size or image_size(row.arch),
        row.params,
        row.macs,
        row.licence,
        default_row(row.arch) is row,
    )


def _of_network(arch: str) -> Listed:
    px = image_size(arch)
    with without_weights():
        cost = complexity(ARCHS[arch](), px)
    return Listed(arch, arch, "no weights", None, px, cost.params, cost.macs, "", False)


def _matches(pattern: Optional[str], *names: str) -> bool:
    return pattern is None or any(fnmatch(name, pattern) for name in names)
