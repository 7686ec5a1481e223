"""Diagrams of residual blocks: the branch on the left, the shortcut on its right."""

from typing import Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.patches import Circle

from . import style
from .structure import Block, Step

FILLS = {"conv": "#cfe3f1", "norm": "#fbe6bd", "relu": "#c6e8dc"}
POOL = "#efdbe8"
BOX, MORE, ARROW = 19, 13, 9  # heights in pixels: a line, each further one, what leads to it
BRANCH, SHORTCUT = 58, 80  # widths
APART = 73  # between their middles
RADIUS = 8  # of the sum


def lines(step: Step) -> Tuple[str, ...]:
    """What a box says: no channels, so that blocks of all stages are alike."""
    return (step.text.split(",")[0], *([step.note] if step.note else []))


def kind(block: Block) -> Tuple[object, ...]:
    """Equal for blocks whose diagrams are."""
    paths = (block.branch, block.shortcut, block.after)
    return (block.fork, *(tuple(map(lines, path)) for path in paths))


def block_height(block: Block) -> int:
    """Of its diagram."""
    return _height(block.branch) + _height(block.after) + 3 * ARROW + 2 * RADIUS


def draw_block(axes: Axes, x: float, y: float, block: Block) -> None:
    """Draw a block whose branch begins at a point of a canvas."""
    fork = y + _height(block.branch[: block.fork]) + 3
    y = _draw_path(axes, x, y, block.branch, BRANCH)
    middle = y + ARROW + RADIUS
    style.line(axes, (x, y), (x, y + ARROW), arrow=True)
    circle = Circle((x, middle), RADIUS, facecolor="white", edgecolor=style.INK, linewidth=0.8)
    axes.add_patch(circle)
    style.text(axes, x, middle, "+", size=13)
    _draw_shortcut(axes, x, fork, middle, block.shortcut)
    y = _draw_path(axes, x, middle + RADIUS, block.after, BRANCH)
    style.line(axes, (x, y), (x, y + 2 * ARROW), arrow=True)


def _draw_shortcut(axes: Axes, x: float, top: float, bottom: float, steps: Sequence[Step]) -> None:
    side = x + APART
    y = (top + bottom - _height(steps)) / 2
    style.line(axes, (x, top), (side, top), (side, y))
    y = _draw_path(axes, side, y, steps, SHORTCUT)
    style.line(axes, (side, y), (side, bottom), (x + RADIUS, bottom), arrow=True)


def _draw_path(axes: Axes, x: float, y: float, steps: Sequence[Step], width: float) -> float:
    """Boxes one below the other, each with the arrow that leads to it; return where they end."""
    for step in steps:
        words = lines(step)
        height = _height([step]) - ARROW
        style.line(axes, (x, y), (x, y + ARROW), arrow=True)
        y += ARROW
        style.box(axes, x - width / 2, y, width, height, FILLS.get(step.kind, POOL))
        for index, line in enumerate(words):
            style.text(axes, x, y + BOX / 2 + index * MORE, line, size=10)
        y += height
    return y


def _height(steps: Sequence[Step]) -> int:
    return sum(ARROW + BOX + MORE * (len(lines(step)) - 1) for step in steps)
