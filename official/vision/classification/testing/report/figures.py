"""Pictures of a report, each as ``data:`` URIs for light and for dark pages.

No name of a class or a file goes into them.
"""

import base64
import io
import warnings
from typing import Callable, NamedTuple, Tuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...page import Say
from ..calibration import Reliability


class Theme(NamedTuple):
    """Colours of a page, those of the style sheet in report.html."""

    paper: str
    ink: str
    grid: str
    right: str
    wrong: str
    pale: str  # of the wrong's hue


LIGHT = Theme("#ffffff", "#3f4650", "#d8dde3", "#2f6fb0", "#d9772b", "#fbe6d4")
DARK = Theme("#171b21", "#b6bec9", "#333a44", "#356fa9", "#e8914a", "#4a3423")


class Picture(NamedTuple):
    """The same picture for both kinds of page."""

    light: str
    dark: str


def reliability_diagram(bins: Reliability, say: Say = str) -> Picture:
    """Accuracy against confidence, bin by bin, above the share of images in each.

    Guo et al., "On Calibration of Modern Neural Networks", figure 1 (arXiv:1706.04599).
    """
    return _both(
        "svg", (6.0, 5.4), lambda figure, theme: _draw_reliability(figure, theme, bins, say)
    )


def confusion_overview(counts: np.ndarray, num_classes: int) -> Picture:
    """Wrong answers of all classes, as ``confusion.density`` counts them."""
    return _both(
        "png", (6.4, 5.6), lambda figure, theme: _draw_overview(figure, theme, counts, num_classes)
    )


def _draw_reliability(figure: Figure, theme: Theme, bins: Reliability, say: Say) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]})
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.1, top=0.93, hspace=0.09)
    edges = np.arange(len(bins.counts)) / len(bins.counts)
    used = bins.counts > 0
    total = np.maximum(bins.counts, 1)
    accuracy, confidence = bins.correct / total, bins.confidence / total
    bar = {"width": 1 / len(bins.counts), "align": "edge", "edgecolor": theme.paper}

    upper.bar(edges[used], accuracy[used], color=theme.right, label=say("accuracy"), **bar)
    upper.bar(
        edges[used],
        (confidence - accuracy)[used],
        bottom=accuracy[used],
        facecolor="none",
        hatch="////",
        label=say("gap to confidence"),
        **{**bar, "edgecolor": theme.wrong},
    )
    upper.plot([0, 1], [0, 1], "--", color=theme.ink, linewidth=1, label=say("as it should be"))
    upper.set(ylabel=say("accuracy"), xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=3, frameon=False)
    lower.bar(edges, bins.counts / bins.counts.sum(), color=theme.ink, alpha=0.6, **bar)
    lower.set(ylabel=say("images"), xlabel=say("confidence"))
    lower.yaxis.set_major_locator(MaxNLocator(3))
    for axis in (upper.xaxis, upper.yaxis, lower.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (upper, lower):
        _quiet(axes, theme)


def _draw_overview(figure: Figure, theme: Theme, counts: np.ndarray, num_classes: int) -> None:
    axes = figure.subplots()
    figure.subplots_adjust(left=0.12, right=0.92, bottom=0.1, top=0.97)
    colours = LinearSegmentedColormap.from_list("wrong", [theme.pale, theme.wrong, theme.ink])
    colours.set_bad(theme.paper)
    shown = axes.imshow(
        np.ma.masked_equal(counts, 0),
        cmap=colours,
        norm=PowerNorm(0.5, 0, counts.max()),  # one image shows beside a hundred
        interpolation="nearest",
        extent=(0, num_classes, num_classes, 0),
    )
    axes.set(xlabel="named (number of the class)", ylabel="right (number of the class)")
    bar = figure.colorbar(shown, ax=axes, label="images named wrong", pad=0.03, fraction=0.05)
    bar.locator = MaxNLocator(5, integer=True)
    bar.update_ticks()
    bar.outline.set_visible(False)


def _quiet(axes: Axes, theme: Theme) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=theme.grid, linewidth=0.7)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _both(kind: str, inches: Tuple[float, float], draw: Callable[[Figure, Theme], None]) -> Picture:
    return Picture(*(_drawn(kind, inches, draw, theme) for theme in (LIGHT, DARK)))


def _drawn(
    kind: str, inches: Tuple[float, float], draw: Callable[[Figure, Theme], None], theme: Theme
) -> str:
    style = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink),
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), theme.paper),
        "axes.edgecolor": theme.grid,
        "svg.hashsalt": "report",  # the same picture is the same bytes
        "svg.fonttype": "none",  # letters stay text, for which browsers have fonts of all languages
        "font.family": "sans-serif",
    }
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # measured, and not drawn here
        figure = Figure(figsize=inches)
        FigureCanvasAgg(figure)
        draw(figure, theme)
        data = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(data, format=kind, dpi=130, metadata=metadata)
    kinds = {"svg": "image/svg+xml", "png": "image/png"}
    return f"data:{kinds[kind]};base64,{base64.b64encode(data.getvalue()).decode()}"
