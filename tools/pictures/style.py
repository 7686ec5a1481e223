"""What the pictures share: pixels as the unit, one font, colours that everyone can tell apart."""

from pathlib import Path
from typing import Tuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon

POINTS = 0.75  # in a pixel
WIDTH = 900  # pixels that a page has for a picture
INK, GREY, RULE = "#1a1a1a", "#555555", "#dddddd"
# Okabe and Ito, "Color Universal Design", 2008.
BLUE, VERMILLION, GREEN = "#0072b2", "#d55e00", "#009e73"
PURPLE, BROWN = "#7b3294", "#8c510a"

# Letters stay text. Verdana, where there is no DejaVu Sans, is as wide, so that boxes still fit.
SETTINGS = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],
    "font.size": 11 * POINTS,
    "svg.fonttype": "none",
    "svg.hashsalt": "pictures",  # the same ids every time
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def new_figure(height: float) -> Figure:
    """A white sheet of ``WIDTH`` by ``height`` pixels."""
    figure = Figure(figsize=(WIDTH * POINTS / 72, height * POINTS / 72), dpi=72 / POINTS)
    FigureCanvasSVG(figure)
    return figure


def canvas(figure: Figure) -> Axes:
    """Axes over the whole sheet: x to the right and y downwards, in pixels."""
    axes = figure.add_axes((0, 0, 1, 1))
    width, height = figure.get_size_inches() * figure.dpi
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    return axes


def text(
    axes: Axes,
    x: float,
    y: float,
    words: str,
    size: float = 11,
    color: str = INK,
    bold: bool = False,
    align: str = "center",
) -> None:
    """Words around, or with ``align`` "left" from, a point of a canvas."""
    weight = "bold" if bold else "normal"
    axes.text(
        x, y, words, size=size * POINTS, color=color, weight=weight, ha=align, va="center_baseline"
    )


def box(axes: Axes, x: float, y: float, width: float, height: float, fill: str) -> None:
    """A rectangle with round corners, by its upper left corner."""
    corners = "round,pad=0,rounding_size=4"
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, corners, facecolor=fill, edgecolor="none", clip_on=False
        )
    )


def line(axes: Axes, *points: Tuple[float, float], arrow: bool = False) -> None:
    """A line through points of a canvas."""
    axes.plot(*zip(*points), color=INK, linewidth=0.8, solid_joinstyle="miter", clip_on=False)
    if arrow:
        (before_x, before_y), (x, y) = points[-2:]
        length = max(abs(x - before_x), abs(y - before_y))  # lines are level or upright
        along, up = (x - before_x) / length, (y - before_y) / length
        base_x, base_y = x - 5 * along, y - 5 * up
        side_x, side_y = 3 * up, 3 * along
        corners = [(x, y), (base_x + side_x, base_y + side_y), (base_x - side_x, base_y - side_y)]
        axes.add_patch(Polygon(corners, facecolor=INK, edgecolor="none", clip_on=False))


def save(figure: Figure, path: Path) -> None:
    """Write the SVG, the same bytes for the same figure."""
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
