"""The networks side by side: a table of their stages, and below it how their blocks differ."""

from typing import Dict, List, NamedTuple, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from megengine.module import Conv2d, Module

from official.vision.classification.zoo import ARCHS
from official.vision.classification.zoo.models import image_size

from . import style
from .blocks import BRANCH, block_height, draw_block, kind
from .structure import Block, Network, Step, read


class Column(NamedTuple):
    """Networks that differ in depth only; ``networks`` are their names by what to call them."""

    title: str
    networks: Dict[str, str]


COLUMNS = (
    Column("ResNet", {"18": "resnet18", "34": "resnet34"}),
    Column("ResNet", {"50": "resnet50", "101": "resnet101", "152": "resnet152"}),
    Column("ResNet-C", {"50": "resnetv1c50", "101": "resnetv1c101", "152": "resnetv1c152"}),
    Column("ResNet-D", {"50": "resnetv1d50", "101": "resnetv1d101", "152": "resnetv1d152"}),
    Column("ResNeXt", {"50 32x4d": "resnext50_32x4d"}),
    Column("Wide ResNet", {"50-2": "wide_resnet50_2", "101-2": "wide_resnet101_2"}),
    Column("ResNet v2", {"50": "resnetv2_50", "101": "resnetv2_101"}),
    Column("CIFAR ResNet", {str(n): f"resnet{n}_cifar" for n in (20, 32, 44, 56, 110)}),
)
RESNET50 = 1  # the column that the others are compared with

LEFT, GAP = 46, 5  # pixels: the rows' names, between cells
TITLE, LINE, PADDING, CAPTION = 44, 15, 6, 104  # heights
ALIKE, OTHER = "#eaf2f8", "#fdf1d6"  # a cell that is as ResNet-50's, and one that is not
SIZE, COUNT = "size", "count"  # lines of a cell that are no layer: its first, its last
NOTE = "note"


class Drawn(NamedTuple):
    """A column, what its shallowest network showed, and each network's blocks per stage."""

    column: Column
    network: Network
    depths: Tuple[Tuple[int, ...], ...]


class Kind(NamedTuple):
    """Blocks with the same diagram: the first and the last of a stage, and whose they are."""

    first: Block
    last: Block
    owners: List[str]


Cell = List[Tuple[str, str]]  # kind and text of each line


def draw_architectures() -> Figure:
    """Build every network, pass an image through one of each column, and draw what was seen."""
    columns = [look(column) for column in COLUMNS]
    rows, kinds = table(columns), block_kinds(columns)
    heights = [max(map(len, cells)) * LINE + 3 * PADDING for cells in rows.values()]
    y = TITLE + sum(heights) + GAP * len(heights)
    tallest = max(block_height(each.first) for each in kinds)
    figure = style.new_figure(y + CAPTION + tallest + 26)
    axes = style.canvas(figure)
    _draw_table(axes, columns, rows, heights)
    _draw_kinds(axes, y, kinds, tallest)
    return figure


def look(column: Column) -> Drawn:
    """Build the networks of a column and pass an image through the first.

    Raises:
        ValueError: where one drawing does not fit all of them.
    """
    depths, kinds = [], []
    for name in column.networks.values():  # one at a time: they are large
        model = ARCHS[name]()
        stages = [stage for part, stage in model.named_children() if part.startswith("layer")]
        depths.append(tuple(map(len, stages)))
        kinds.append([{_convolutions(block) for block in stage} for stage in stages])
        if kinds[-1] != kinds[0] or any(len(kind) > 1 for kind in kinds[0]):
            raise ValueError(f"{name}: not all blocks of a stage are as those of its column")
        if len(depths) == 1:
            network = read(model, image_size(name))
    return Drawn(column, network, tuple(depths))


def _convolutions(block: Module) -> Tuple[object, ...]:
    """What those of its branch are, but for the stride."""
    return tuple(
        (conv.kernel_size, conv.out_channels, conv.groups)
        for conv in block.children()
        if isinstance(conv, Conv2d)
    )


def table(columns: Sequence[Drawn]) -> Dict[str, List[Cell]]:
    """The cells of each row, by the name that ``extract_features`` has for it."""
    stages = max(len(drawn.network.stages) for drawn in columns)
    rows = {"stem": [_cell(drawn.network.stem) for drawn in columns]}
    for index in range(stages):
        rows[f"res{index + 2}"] = [_stage(drawn, index) for drawn in columns]
    rows["head"] = [_cell(drawn.network.head)[1:] for drawn in columns]
    return rows


def _stage(drawn: Drawn, index: int) -> Cell:
    if index >= len(drawn.network.stages):
        return []
    counts = _listed([str(depth[index]) for depth in drawn.depths])
    return [*_cell(drawn.network.stages[index][-1].branch), (COUNT, f"× {counts}")]


def _cell(steps: Sequence[Step]) -> Cell:
    """The size of the map that layers end in, and the layers."""
    shown = [step for step in steps if step.kind in ("conv", "pool", "linear")]
    cell = [(SIZE, "×".join(map(str, shown[-1].shape[2:])))]
    for step in shown:
        cell.append((step.kind, step.text))
        if step.note:
            cell.append((NOTE, step.note))
    return cell


def block_kinds(columns: Sequence[Drawn]) -> List[Kind]:
    """The kinds of blocks that begin and end res3."""
    kinds: Dict[object, Kind] = {}
    titles = [drawn.column.title for drawn in columns]
    for drawn in columns:
        first, *_, last = drawn.network.stages[1]
        owner = drawn.column.title
        if titles.count(owner) > 1:
            owner = f"{owner} {', '.join(drawn.column.networks)}"
        kinds.setdefault((kind(first), kind(last)), Kind(first, last, [])).owners.append(owner)
    return list(kinds.values())


def _draw_table(
    axes: Axes, columns: Sequence[Drawn], rows: Dict[str, List[Cell]], heights: Sequence[int]
) -> None:
    width = (style.WIDTH - LEFT) / len(columns)
    for place, drawn in enumerate(columns):
        x = LEFT + (place + 0.5) * width - GAP / 2
        style.text(axes, x, 15, drawn.column.title, size=12, bold=True)
        style.text(axes, x, 32, _listed(list(drawn.column.networks)), color=style.GREY)
    y = TITLE
    for (name, cells), height in zip(rows.items(), heights):
        style.text(axes, 4, y + height / 2, name, bold=True, align="left")
        for place, cell in enumerate(cells):
            if cell:
                fill = ALIKE if layers(cell) == layers(cells[RESNET50]) else OTHER
                style.box(axes, LEFT + place * width, y, width - GAP, height, fill)
                _draw_cell(axes, LEFT + (place + 0.5) * width - GAP / 2, y, height, cell)
        y += height + GAP
    for fill, x, words in (
        (ALIKE, LEFT, "as in ResNet-50"),
        (OTHER, LEFT + 130, "differs from it"),
    ):
        style.box(axes, x, y + 4, 14, 14, fill)
        style.text(axes, x + 20, y + 11, words, size=10, color=style.GREY, align="left")
    words = "size of the map; kernel/stride, channels; × blocks by depth; for 224 pixels, CIFAR 32"
    style.text(axes, style.WIDTH - GAP, y + 11, words, size=10, color=style.GREY, align="right")


def _listed(words: Sequence[str]) -> str:
    """Words between bars, closer where there are many."""
    return (" | " if len(words) <= 3 else "|").join(words)


def layers(cell: Cell) -> Cell:
    """A cell without its number of blocks."""
    return [line for line in cell if line[0] != COUNT]


def _draw_cell(axes: Axes, x: float, y: float, height: float, cell: Cell) -> None:
    """The size at the top, the number of blocks at the bottom, layers in the middle."""
    top, bottom = y + PADDING + LINE / 2, y + height - PADDING - LINE / 2
    if cell[0][0] == SIZE:
        style.text(axes, x, top, cell[0][1], color=style.GREY)
        top, cell = top + LINE, cell[1:]
    if cell[-1][0] == COUNT:
        style.text(axes, x, bottom, cell[-1][1], bold=True)
        bottom, cell = bottom - LINE, cell[:-1]
    first = (top + bottom - (len(cell) - 1) * LINE) / 2
    for index, (what, words) in enumerate(cell):
        color = style.GREY if what == NOTE else style.INK
        style.text(axes, x, first + index * LINE, words, color=color)


def _draw_kinds(axes: Axes, y: float, kinds: Sequence[Kind], height: float) -> None:
    title = "Blocks: the first of res3, which halves the map"
    style.text(axes, 4, y + 44, title, size=12, bold=True, align="left")
    width = (style.WIDTH - 4) / len(kinds)
    for place, each in enumerate(kinds):
        x = 4 + place * width
        for index, owner in enumerate(each.owners):
            style.text(axes, x, y + 66 + index * 14, owner, color=style.GREY, align="left")
        draw_block(axes, x + BRANCH / 2, y + CAPTION, each.first)
        rest = " ".join(step.text for step in each.last.shortcut) or "identity"
        words = f"later blocks: {rest}"
        style.text(axes, x, y + CAPTION + height + 14, words, color=style.GREY, align="left")
