"""Accuracy of the published weights against the size and the speed of their networks.

How fast they are is in docs/pictures/speeds.json, which benchmarks/network_speeds.py measures.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from official.vision.classification.zoo import ROWS, Row

from . import style
from .labels import Box, place_labels, text_width

SPEEDS = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "speeds.json"
HEIGHT = 1495  # pixels
LETTERS = 10 * style.POINTS
# Colour, shape and pixels. Shapes tell publishers apart for those who do not see colours.
MARKS: Dict[str, Tuple[str, str, int]] = {
    "MegEngine/Models": (style.VERMILLION, "s", 8),
    "MMPreTrain": (style.BLUE, "o", 6),
    "MindCV": (style.GREEN, "D", 6),
    "timm": (style.PURPLE, "^", 6),
    "torchvision": (style.BROWN, "v", 6),
}


class Panel(NamedTuple):
    """Axes for the rows of a data set: accuracy over a size, which has a logarithmic scale.

    Args:
        top1: the ends of the accuracy's axis in per cent.
        size, of: the size's name, and a row's size in its unit.
        place: left, top, width and height in pixels.
        limits: the ends of the size's axis.
        per: ticks show this many over the size, for a speed; None where they show the size.
    """

    dataset: str
    top1: Tuple[float, float]
    size: str
    of: Callable[[Row], float]
    place: Tuple[int, int, int, int]
    limits: Tuple[float, float]
    per: Optional[float] = None


def parameters(row: Row) -> float:
    """In millions."""
    return row.params / 1e6


def multiply_adds(row: Row) -> float:
    """In billions."""
    return row.macs / 1e9


def milliseconds(row: Row) -> float:
    """That an image takes at the size of the row's test.

    Raises:
        ValueError: where it was not measured.
    """
    pair = (row.arch, row.preprocess.crop)
    for each in speeds()["networks"]:
        if (each["network"], each["px"]) == pair:
            return 1000 / each["images_per_second"]
    raise ValueError(f"{pair}: not in {SPEEDS}; run benchmarks/network_speeds.py --out {SPEEDS}")


@lru_cache(maxsize=None)
def speeds() -> Dict[str, Any]:
    """What was measured, and on what."""
    return json.loads(SPEEDS.read_text(encoding="utf-8"))


PARAMS, MACS = "parameters (millions)", "multiply-adds (billions)"
SPEED = "images per second on a CPU, one at a time, measured"
TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
# Both axes of a data set have the same accuracies.
IMAGENET, CIFAR10 = ("ImageNet-1k", (66.5, 86)), ("CIFAR-10", (94.6, 96))
PANELS = (
    Panel(*IMAGENET, PARAMS, parameters, (44, 32, 848, 340), (5, 600)),
    Panel(*IMAGENET, MACS, multiply_adds, (44, 432, 848, 340), (0.9, 110)),
    Panel(*IMAGENET, SPEED, milliseconds, (44, 832, 848, 340), (8, 2200), per=1000),
    Panel(*CIFAR10, PARAMS, parameters, (44, 1252, 402, 130), (10, 90)),
    Panel(*CIFAR10, MACS, multiply_adds, (490, 1252, 402, 130), (0.5, 6)),
)


def draw_accuracy() -> Figure:
    """Top-1 accuracy of every row that has one, against parameters, multiply-adds and speed."""
    figure = style.new_figure(HEIGHT)
    for panel in PANELS:
        _draw_panel(figure, panel)
    sheet = style.canvas(figure)
    style.text(sheet, 4, 14, "ImageNet-1k: top-1 accuracy (%)", size=12, bold=True, align="left")
    style.text(sheet, 4, 1234, "CIFAR-10: top-1 accuracy (%)", size=12, bold=True, align="left")
    for index, words in enumerate(footnotes()):
        style.text(sheet, 4, 1434 + 15 * index, words, size=10, color=style.GREY, align="left")
    _draw_legend(sheet)
    return figure


def shown(dataset: str) -> List[Row]:
    """The rows of a data set that have an accuracy."""
    return [row for row in ROWS if row.dataset == dataset and row.top1 is not None]


def named(panel: Panel) -> List[Row]:
    """The rows whose names are written.

    For ImageNet those that may be used commercially and that none of these, if smaller, equals.
    """
    rows = sorted(shown(panel.dataset), key=lambda row: (panel.of(row), -(row.top1 or 0.0)))
    if panel.dataset != IMAGENET[0]:
        return rows
    found: List[Row] = []
    for row in (row for row in rows if row.commercial):
        if not found or (row.top1 or 0.0) > (found[-1].top1 or 0.0):
            found.append(row)
    return found


def name(row: Row) -> str:
    """The network, and what its training differs by from the publisher's usual one."""
    if "." in row.name:  # timm's name, which has both
        return row.name.replace("_in1k", "")
    recipe = "_".join(row.name.split("_")[1:-1]) if row.name != row.arch else ""
    usual = r"\d+xb\d+-?|-?\d+e$|naiveaug|fbaug|32x4d|32x8d|3rdparty-?|_"
    return f"{row.arch} {re.sub(usual, '', recipe)}".strip()


def footnotes() -> List[str]:
    """The rows that no panel has."""
    drawn = {panel.dataset for panel in PANELS}
    single = [
        f"{row.dataset}: {row.arch} {row.top1:.2f}"
        for row in ROWS
        if row.dataset not in drawn and row.top1 is not None
    ]
    unknown = [row.arch for row in ROWS if row.top1 is None]
    return [
        "Hollow: the licence forbids commercial use. Named, on ImageNet: what no smaller of the "
        "others equals. docs/weights.md has all.",
        _measured(),
        f"Single rows: {'; '.join(single)}.",
        f"Accuracy not published: {', '.join(unknown)}.",
    ]


def _measured() -> str:
    about = speeds()
    machine = about["machine"]
    return (
        f"Speed: at the size of the test, {about['precision']}, {about['threads']} threads on "
        f"{machine['cores']} cores of {machine['cpu']}, {about['date']}, "
        "benchmarks/network_speeds.py."
    )


def _draw_panel(figure: Figure, panel: Panel) -> None:
    left, top, width, height = panel.place
    axes = figure.add_axes(
        (left / style.WIDTH, 1 - (top + height) / HEIGHT, width / style.WIDTH, height / HEIGHT)
    )
    axes.set(xscale="log", xlim=panel.limits, ylim=panel.top1, axisbelow=True)
    axes.set_xlabel(panel.size, size=11 * style.POINTS)
    places = TICKS if panel.per is None else [panel.per / tick for tick in TICKS]
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x if panel.per is None else panel.per / x:g}")
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=LETTERS, length=3)
    axes.grid(color=style.RULE, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    rows = shown(panel.dataset)
    for row in rows:
        color, marker, pixels = MARKS[row.source]
        axes.plot(
            [panel.of(row)],
            [row.top1],
            marker,
            color=color,
            markersize=pixels * style.POINTS,
            markerfacecolor=color if row.commercial else "white",
            markeredgecolor="white" if row.commercial else color,
            markeredgewidth=0.5 if row.commercial else 1,
            gid=f"{panel.size.split()[0]}.{row.name}",
        )
    names = named(panel)
    _draw_names(axes, panel, names, [row for row in rows if row not in names])


def _draw_names(axes: Axes, panel: Panel, rows: Sequence[Row], others: Sequence[Row]) -> None:
    _, _, width, height = panel.place
    to_axes = axes.transData + axes.transAxes.inverted()
    points, nameless = (
        [tuple(to_axes.transform((panel.of(row), row.top1)) * (width, height)) for row in each]
        for each in (rows, others)
    )
    widths = [text_width(name(row), LETTERS) / style.POINTS for row in rows]
    labels = place_labels(points, widths, Box(2, 2, width, height), nameless)
    for row, (x, y), label in zip(rows, points, labels):
        axes.text(
            label.box.left / width,
            (label.box.bottom + label.box.top) / 2 / height,
            name(row),
            size=LETTERS,
            color=MARKS[row.source][0],
            va="center_baseline",
            transform=axes.transAxes,
        )
        if label.far:
            end_x, end_y = label.leader
            axes.plot(
                [x / width, end_x / width],
                [y / height, end_y / height],
                color=style.GREY,
                linewidth=0.5,
                transform=axes.transAxes,
                zorder=1.5,
            )


def _draw_legend(sheet: Axes) -> None:
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            color=color,
            label=source,
            markersize=pixels * style.POINTS,
        )
        for source, (color, marker, pixels) in MARKS.items()
    ]
    sheet.legend(
        handles=marks,
        loc="upper right",
        bbox_to_anchor=(1 - 8 / style.WIDTH, 1 - 4 / HEIGHT),
        ncol=len(marks),
        frameon=False,
        fontsize=11 * style.POINTS,
        borderaxespad=0,
        borderpad=0,
        handletextpad=0,
    )
