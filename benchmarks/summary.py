"""From seconds to what the tables show."""

import statistics
from typing import Any, Dict, List, NamedTuple, Optional, Sequence


class Speed(NamedTuple):
    """Images per second over several steps."""

    median: float
    deviation: float  # standard deviation of a single step; 0 for one step
    steps: int


def speed(seconds: Sequence[float], images: int) -> Speed:
    """The speed of steps that take ``images`` images each."""
    rates = [images / each for each in seconds]
    deviation = statistics.stdev(rates) if len(rates) > 1 else 0.0
    return Speed(images / statistics.median(seconds), deviation, len(rates))


def fastest(runs: Dict[str, Any], names: Sequence[str]) -> Optional[str]:
    """Which of those ``names`` that were run has the shortest median; None without any."""
    run = [name for name in names if name in runs]
    if not run:
        return None
    return min(run, key=lambda name: statistics.median(runs[name]["seconds"]))


def times_faster(runs: Dict[str, Any], name: str, other: Optional[str]) -> Optional[float]:
    """Ratio of the medians' speeds; None when one of them was not run."""
    if other is None or name not in runs or other not in runs:
        return None
    mine = statistics.median(runs[name]["seconds"])
    theirs = statistics.median(runs[other]["seconds"])
    return theirs / mine


def memory_ratio(runs: Dict[str, Any], name: str, others: Sequence[str]) -> Optional[float]:
    """Peak memory relative to that of the thriftiest of ``others``; None when nothing was run."""
    peaks = [runs[other]["facts"]["peak_mb"] for other in others if other in runs]
    if name not in runs or not peaks:
        return None
    return runs[name]["facts"]["peak_mb"] / min(peaks)


def operations(macs: int, first_macs: int, mode: str) -> int:
    """Floating-point operations of convolutions and linear layers for one image.

    Training has three passes of the size of the forward one, for the maps and for the gradients of
    maps and weights; only the gradient of the images is wanted by nobody.

    Args:
        macs: multiply-adds of a forward pass.
        first_macs: those of the convolution that sees the images.
    """
    return 2 * macs if mode == "inference" else 2 * (3 * macs - first_macs)


def peak(measured: List[Dict[str, Any]], threads: int, precision: str) -> Optional[float]:
    """The median GFLOP/s of the measurements with ``threads``; None where there are none."""
    values = [each[precision] for each in measured if each["threads"] == threads]
    return None if not values or None in values else statistics.median(values)
