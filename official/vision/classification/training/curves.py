"""A run's learning curves as a picture."""

import math
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..engine.console import read_metrics

Rows = List[Dict[str, Any]]

_TRAINING, _VALIDATION, _AVERAGED = "#8a9199", "#1f6fb5", "#d9772b"
_POINTS = 60  # of the smoothed training line that are independent of each other, about
_SHARE = 0.98  # of the training values lie within the axes; what is validated always does


def draw_curves(folder: Path) -> Path:
    """Draw ``curves.png`` from ``metrics.jsonl``: loss, accuracy and learning rate by epoch."""
    path = folder / "curves.png"
    figure_of(read_metrics(folder)).savefig(path, dpi=100)
    return path


def figure_of(rows: Rows) -> Figure:
    """The figure of a run's metrics.

    What a step reports is drawn pale, its running median strong. The axes hold everything that was
    validated, and of the training all but its outliers, so that one bad step hides nothing.
    """
    train = [row for row in rows if row["event"] == "train"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    figure = Figure(figsize=(12, 3.6))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.14, top=0.9, wspace=0.17)
    loss, accuracy, rate = figure.subplots(1, 3)
    _draw(loss, train, epochs, "loss")
    _draw(accuracy, train, epochs, "top1")
    accuracy.set_ylim(top=min(accuracy.get_ylim()[1], 100))
    _mark_best(accuracy, epochs)
    rate.plot(_column(train, "epoch"), _column(train, "lr"), color=_TRAINING)
    loss.set(title="Loss", xlabel="epoch")
    accuracy.set(title="Top-1 accuracy (%)", xlabel="epoch")
    rate.set(title="Learning rate", xlabel="epoch", ylim=(0, None))
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
    loss.legend(loc="upper right")
    accuracy.legend(loc="lower right")
    return figure


def _draw(axes: Axes, train: Rows, epochs: Rows, name: str) -> None:
    """The lines of the loss or the accuracy, and axes that hold them."""
    x, y = _column(train, "epoch"), _column(train, name)
    axes.plot(x, y, color=_TRAINING, alpha=0.3, linewidth=0.8)
    smooth = smoothed(y)
    axes.plot(x, smooth, color=_TRAINING, label="training", linewidth=1.6)
    validated: List[float] = []
    for kind, label, colour in (
        ("val", "validation", _VALIDATION),
        ("average", "averaged weights", _AVERAGED),
    ):
        known = [row for row in epochs if f"{kind}_{name}" in row]
        if known or kind == "val":
            values = _column(known, f"{kind}_{name}")
            axes.plot(_column(known, "epoch"), values, ".-", color=colour, label=label)
            validated += values
    low, high = robust_limits(smooth, validated)
    axes.set_ylim(max(low, 0), high)


def smoothed(values: Sequence[float]) -> List[float]:
    """The median of a window around each value, smaller at the ends.

    One step that went wrong does not show in it; values that are not finite do not count.
    """
    reach = max(1, len(values) // (2 * _POINTS))
    medians = []
    for place in range(len(values)):
        width = min(reach, place, len(values) - 1 - place)  # else the ends would be drawn inwards
        near = [v for v in values[place - width : place + width + 1] if math.isfinite(v)]
        medians.append(float(np.median(near)) if near else math.nan)
    return medians


def robust_limits(train: Sequence[float], validated: Sequence[float]) -> Tuple[float, float]:
    """From below to above all finite values of ``validated`` and most of ``train``."""
    kept = [value for value in validated if math.isfinite(value)]
    finite = [value for value in train if math.isfinite(value)]
    if finite:
        outside = 50 * (1 - _SHARE)
        kept += np.percentile(finite, [outside, 100 - outside]).tolist()
    if not kept:
        return 0.0, 1.0
    low, high = min(kept), max(kept)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def best_epoch(epochs: Rows) -> Optional[Tuple[float, float]]:
    """Epoch and accuracy of the weights in ``best.safetensors``.

    The accuracy is that of the averaged weights where there are any, as the trainer chooses. Of an
    older run, whose rows do not say which were the best so far, it is the first of the highest.
    """
    found = [
        (row["epoch"], row.get("average_top1", row["val_top1"]), row.get("best"))
        for row in epochs
        if math.isfinite(row["val_top1"])
    ]
    if not found:
        return None
    chosen = [(epoch, top1) for epoch, top1, best in found if best]
    if chosen:
        return chosen[-1]
    top1 = max(value for _, value, _ in found)
    return next(epoch for epoch, value, _ in found if value == top1), top1


def _mark_best(axes: Axes, epochs: Rows) -> None:
    best = best_epoch(epochs)
    if best is None:
        return
    epoch, top1 = best
    axes.axvline(epoch, color="#1c2128", linewidth=0.8, linestyle=":")
    axes.plot([epoch], [top1], "*", color="#1c2128", markersize=11, zorder=5)
    axes.plot([], [], "k*", label=f"best: {top1:.1f} %, epoch {epoch:g}")


def _column(rows: Rows, name: str) -> List[Any]:
    return [row[name] for row in rows]
