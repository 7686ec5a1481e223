"""What fine-tuning on photographs reached: a dot for each run in docs/fine_tuning.jsonl."""

import json
from pathlib import Path
from statistics import mean
from typing import Any, Dict, List

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import style

RUNS = Path(__file__).resolve().parents[2] / "docs" / "fine_tuning.jsonl"
VALIDATION, TEST = 341, 372  # images
# Pixels: the width of the recipes' names, and the heights of a row, a title and the axis below.
LEFT, RIGHT, ROW, TITLE, AXIS = 260, 30, 24, 34, 46
OURS = "`train.py"
Run = Dict[str, Any]


def draw_fine_tuning() -> Figure:
    """A panel for each number of photographs to train on, a row for each recipe."""
    panels = _panels(_runs())
    height = sum(TITLE + ROW * len(rows) for rows in panels.values()) + AXIS
    figure = style.new_figure(height)
    shares = [_share(run) for run in _runs()]
    limits = (min(shares) - 2, max(shares) + 2)
    top = 0.0
    for photographs, rows in panels.items():
        place = (LEFT, height - top - TITLE - ROW * len(rows), style.WIDTH - LEFT - RIGHT)
        box = [place[0] / style.WIDTH, place[1] / height, place[2] / style.WIDTH]
        axes = figure.add_axes((*box, ROW * len(rows) / height))
        _draw_panel(axes, f"{photographs:,} photographs to train on", rows)
        axes.set_xlim(*limits)
        top += TITLE + ROW * len(rows)
    axes.tick_params(bottom=True, labelbottom=True)
    axes.set_xlabel(
        f"of {VALIDATION} validation and {TEST} test images together, % right; a dot is a run, "
        "a line the mean"
    )
    return figure


def _runs() -> List[Run]:
    return [json.loads(line) for line in RUNS.read_text("utf-8").splitlines()]


def _share(run: Run) -> float:
    return 100 * (run["validation"] + run["test"]) / (VALIDATION + TEST)


def _panels(runs: List[Run]) -> Dict[int, Dict[str, List[float]]]:
    """Shares of right images by number of photographs and recipe, in the order of the file."""
    panels: Dict[int, Dict[str, List[float]]] = {}
    for run in runs:
        rows = panels.setdefault(run["photographs"], {})
        rows.setdefault(run["recipe"], []).append(_share(run))
    return panels


def _draw_panel(axes: Axes, title: str, rows: Dict[str, List[float]]) -> None:
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), [name.replace("`", "") for name in rows])
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    axes.grid(axis="x", color=style.RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title(title, loc="left", fontsize=11 * style.POINTS, fontweight="bold")
    for row, (name, shares) in enumerate(rows.items()):
        color, shape = (style.BLUE, "o") if name.startswith(OURS) else (style.VERMILLION, "s")
        axes.plot([mean(shares)] * 2, [row - 0.3, row + 0.3], color=style.INK, linewidth=1.2)
        axes.plot(shares, [row] * len(shares), shape, color=color, markersize=5, alpha=0.7)
