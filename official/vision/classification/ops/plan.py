"""A network's evaluation for images of one shape, as a list of steps that one native call does.

Normalisations are folded (recorder.py), weights packed (steps.py), and all maps lie in one piece of
memory. native/plan/ has the kernels.
"""

import logging
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from .build import Kernels
from .quantize import Quantities, range_of, rounded_weight, scale_and_bias
from .recorder import CannotCompile, Node, Value
from .steps import (
    BFLOAT16,
    BYTE,
    BYTES,
    CONVOLVE,
    COPY,
    FLOAT,
    WINOGRAD,
    Map,
    Step,
    packed,
    room,
    winograd_points,
)

_CACHE = 12 << 20  # bytes of maps that are expected to stay in a cache
_HEAVY = 1 << 20  # numbers of a weight that would not stay there as Winograd's points
_FEWEST = 4  # nodes that have an own number of images at once
_SPARE = 4  # arenas that a plan keeps for the next of several threads
# For which Winograd's algorithm is faster than the direct one, by type of element.
_LEAST_TILES = {FLOAT: 12, BFLOAT16: 32}

Maps = Dict[str, np.ndarray]
Life = Tuple[int, int]  # the first and the last node that need a map
Clock = Callable[[int, Node, float], None]

logger = logging.getLogger(__name__)


class Weights:
    """Packed weights of a network by node, for all its plans."""

    def __init__(self) -> None:
        self._packed: Dict[Tuple[int, int, int], np.ndarray] = {}

    def of(self, number: int, node: Node, kind: int, element: int) -> np.ndarray:
        """The weight of the network's ``number``-th node for an algorithm."""
        key = (number, kind, element)
        if key not in self._packed:
            if kind == WINOGRAD:
                self._packed[key] = winograd_points(node.weight)
            else:
                window = node.window
                dilated = window["dilation"][1] > 1
                weight = rounded_weight(node.weight)[0] if element == BYTE else node.weight
                try:
                    self._packed[key] = packed(weight, window.get("groups", 1), dilated, element)
                except ValueError as reason:
                    raise CannotCompile(str(reason)) from None
        return self._packed[key]


class Plan:
    """A network for images of one shape.

    Args:
        nodes: in order.
        x: what the first of them take.
        outputs: by name.
        element: the type of maps: FLOAT, BFLOAT16 or BYTE.
        quantities: for BYTE the scale and zero of every value.
    """

    def __init__(
        self,
        kernels: Kernels,
        nodes: Sequence[Node],
        x: Value,
        outputs: Dict[str, Value],
        weights: Weights,
        element: int,
        quantities: Optional[Quantities] = None,
    ):
        self._run = kernels.run_steps
        self._outputs, self._element = outputs, element
        self._kept: List[np.ndarray] = []  # what steps point at
        inside = Value(x.shape)
        nodes = [
            Node(COPY, x, inside),
            *(_with_input(node, x, inside) for node in nodes),
        ]
        halos = _halos(nodes)
        maps = {x: _map(x, FLOAT, 0)}
        read = {value for node in nodes for value in (node.x, node.add)}
        for node in nodes:
            # What only the caller reads is not rounded.
            kept = element if node.y in read else FLOAT
            maps[node.y] = _map(node.y, kept, halos.get(node.y, 0))
            if kept == BYTE and quantities is not None:
                maps[node.y].scale, maps[node.y].zero = quantities[
                    x if node.y is inside else node.y
                ]
        for value in outputs.values():
            nodes.append(Node(COPY, value, Value(value.shape)))
            maps[nodes[-1].y] = _map(value, FLOAT, 0)
        self._ends = len(nodes) - len(outputs)
        outside = {x, *(node.y for node in nodes[self._ends :])}
        self._shares = shares_of(nodes, maps, kernels.threads)
        self._places, self._strides, self._bytes = _arrange(nodes, maps, outside, self._shares)
        self._maps = maps
        self._nodes = nodes
        self._steps = (Step * len(nodes))()
        for number, node in enumerate(nodes):
            self._fill(number, node, weights, element)
        self._spare: List[Tuple[np.ndarray, Any]] = []  # arenas with their steps; append is atomic

    def __call__(self, x: np.ndarray, clock: Optional[Clock] = None) -> Maps:
        """The outputs for ``(N, H, W, C)`` contiguous float32 or bfloat16 images.

        The former may also be the transposed view of contiguous ``(N, C, H, W)``. The outputs are
        ``(N, H, W, C)`` or ``(N, C)`` float32.

        Args:
            clock: is told the kind and node of every step, and the seconds that it took.
        """
        try:
            arena, steps = self._spare.pop()
        except IndexError:
            arena, steps = self._workspace()
        if self._element == BYTE:
            finite = np.isfinite(x.sum(axis=(1, 2, 3)))
        steps[0].x.data = x.ctypes.data
        steps[0].before = not x.flags.c_contiguous
        steps[0].x.type = FLOAT if x.dtype == np.float32 else BFLOAT16
        found = {}
        for place, (name, value) in enumerate(self._outputs.items(), self._ends):
            flat = len(value.shape) == 2
            found[name] = np.empty(value.shape if flat else value.size, np.float32)
            steps[place].y.data = found[name].ctypes.data
        if clock is None:
            self._run(steps)
        else:
            self._run_timed(steps, clock)
        if len(self._spare) < _SPARE:
            self._spare.append((arena, steps))
        if self._element == BYTE and not finite.all():  # there is no byte for these
            for each in found.values():
                each[~finite] = np.nan
        return found

    def _run_timed(self, steps: Any, clock: Clock) -> None:
        for number, node in enumerate(self._nodes):
            started = time.perf_counter()
            self._run(steps, number, 1)
            clock(steps[number].kind, node, time.perf_counter() - started)

    def _workspace(self) -> Tuple[np.ndarray, Any]:
        arena = room(self._bytes)
        arena[:] = 0  # runs may read a few bytes beyond a map, which count for nothing
        steps = type(self._steps).from_buffer_copy(self._steps)
        for step, node in zip(steps, self._nodes):
            for where, value in ((step.x, node.x), (step.y, node.y), (step.add, node.add)):
                if value in self._places:
                    where.data = arena.ctypes.data + self._places[value]
        return arena, steps

    def _fill(self, number: int, node: Node, weights: Weights, element: int) -> None:
        step = self._steps[number]
        step.kind, step.relu = node.kind, node.relu
        step.x, step.y = self._maps[node.x], self._maps[node.y]
        if node.add is not None:
            step.add = self._maps[node.add]
        for name, value in node.window.items():
            setattr(step, name, value)
        step.groups = max(1, step.groups)
        step.images = node.y.shape[0]
        step.at_once, step.apart = self._shares[number]
        step.spacing = self._strides[number]
        scale, bias = node.scale, node.bias
        if node.kind == CONVOLVE:
            step.kind = algorithm(node, element, step.at_once)
            step.weight = self._address(weights.of(number, node, step.kind, element))
            if element == BYTE:
                scale, bias = scale_and_bias(node, step.x, step.y, step.add)
        if scale is not None:
            step.scale = self._address(_padded(scale))
        if bias is not None:
            step.bias = self._address(_padded(bias))

    def _address(self, array: np.ndarray) -> int:
        self._kept.append(array)
        return array.ctypes.data


def algorithm(node: Node, element: int, images: int) -> int:
    """WINOGRAD where it is the faster one for so many images, else CONVOLVE."""
    window = node.window
    _, height, width, channels = node.y.size
    tiles = images * -(-height // 4) * -(-width // 4)
    fits = (
        element in _LEAST_TILES
        and window["kernel"] == (3, 3)
        and window["stride"] == window["dilation"] == (1, 1)
        and window.get("groups", 1) == 1
        and min(channels, node.x.shape[1]) >= 16
    )
    return WINOGRAD if fits and tiles >= _LEAST_TILES[element] else CONVOLVE


def _with_input(node: Node, x: Value, inside: Value) -> Node:
    node.x = inside if node.x is x else node.x
    node.add = inside if node.add is x else node.add
    return node


def _padded(vector: np.ndarray) -> np.ndarray:
    """One that can be read sixteen at a time to its end."""
    padded = np.zeros(-(-len(vector) // 16) * 16, np.float32)
    padded[: len(vector)] = vector
    return padded


def _halos(nodes: Sequence[Node]) -> Dict[Value, int]:
    """How many pixels around it the convolutions of a map read."""
    halos: Dict[Value, int] = {}
    for node in nodes:
        if node.kind == CONVOLVE:
            halos[node.x] = max(halos.get(node.x, 0), *node.window["padding"])
    return halos


def _map(value: Value, element: int, halo: int) -> Map:
    return Map(None, element, *value.size, halo, 0, 1.0)


class Share(NamedTuple):
    """How many images go through a node and its neighbours before the next ones do.

    ``apart`` threads do so by themselves, each with other images; 1 is for all threads together.
    """

    images: int
    apart: int = 1


def shares_of(nodes: Sequence[Node], maps: Dict[Value, Map], threads: int) -> List[Share]:
    """For each node so many images that what it reads and writes stays in the cache.

    It is the same for all nodes between maps of a size: what one leaves there the next one finds.
    """
    images = nodes[0].y.shape[0]
    apart = threads if threads <= 64 and (images % threads == 0 or images >= 4 * threads) else 1
    found: List[Share] = []
    first = 0
    for number, node in enumerate(nodes, 1):
        last = number == len(nodes)
        if last or (nodes[number].y.size[1] != node.y.size[1] and number - first >= _FEWEST):
            group = nodes[first:number]
            found += [_share(group, maps, images, apart)] * len(group)
            first = number
    return found


def _share(nodes: Sequence[Node], maps: Dict[Value, Map], images: int, apart: int) -> Share:
    if max(node.weight.size for node in nodes) > _HEAVY:  # it is to be read once
        return Share(images)
    most = 0
    for node in nodes:
        touched = [maps[each] for each in (node.x, node.y, node.add) if each is not None]
        most = max(most, sum(_size(each) for each in touched) // images)
    parts = -(-images // max(1, _CACHE // apart // most))
    if apart > 1:
        parts = min(images, -(-parts // apart) * apart)
    return Share(-(-images // parts), apart)


def _size(each: Map) -> int:
    """Bytes, and some that may be read beyond, in whole lines of the cache."""
    rows = each.count * (each.height + 2 * each.halo)
    used = rows * (each.width + 2 * each.halo) * each.channels * BYTES[each.type]
    return -(-(used + 16) // 64) * 64


class Arena(NamedTuple):
    """Where maps lie, in bytes; each thread that works apart has what is ``strides`` further on."""

    places: Dict[Value, int]
    strides: List[int]  # of every node
    size: int


def _arrange(
    nodes: Sequence[Node], maps: Dict[Value, Map], outside: Set[Value], shares: Sequence[Share]
) -> Arena:
    """Two maps may share bytes when no node needs both.

    A map that only nodes which go together need has room for the images that they take at once, and
    says so. Threads that work apart are at different nodes at a time: such maps are in a block for
    each thread.
    """
    group = [0]  # the first of the nodes that go together with each
    for number in range(1, len(nodes)):
        same = shares[number].images == shares[number - 1].images
        group.append(group[-1] if same else number)
    ends = {first: number for number, first in enumerate(group)}
    used: Dict[Value, List[int]] = {}
    for number, node in enumerate(nodes):
        for value in (node.x, node.y, node.add):
            if value is not None and value not in outside:
                used.setdefault(value, []).append(number)
    lives: Dict[Any, Life] = {}  # of maps, and of blocks by their group
    inner: Dict[int, Dict[Any, Life]] = {}
    for value, numbers in used.items():
        first, last = numbers[0], numbers[-1]
        if group[first] != group[last]:  # every part of these groups needs it
            lives[value] = group[first], ends[group[last]]
            continue
        maps[value].count = shares[first].images
        of = lives if shares[first].apart == 1 else inner.setdefault(group[first], {})
        of[value] = first, last
    sizes: Dict[Any, int] = {value: _size(maps[value]) for value in used}
    strides = [0] * len(nodes)
    inside: Dict[int, Dict[Any, int]] = {}
    for first, those in inner.items():
        inside[first], stride = _fit(those, sizes)
        lives[first], sizes[first] = (first, ends[first]), stride * shares[first].apart
        strides[first : ends[first] + 1] = [stride] * (ends[first] + 1 - first)
    places, size = _fit(lives, sizes)
    for first, offsets in inside.items():
        places.update({value: places[first] + offset for value, offset in offsets.items()})
    return Arena(places, strides, size + 64)


def _fit(lives: Dict[Any, Life], sizes: Dict[Any, int]) -> Tuple[Dict[Any, int], int]:
    """Offsets, and the size of all: largest first, each in the first gap that fits."""
    places: Dict[Any, int] = {}
    for value in sorted(lives, key=lambda each: -sizes[each]):
        first, last = lives[value]
        taken = sorted(
            (places[other], places[other] + sizes[other])
            for other in places
            if lives[other][0] <= last and first <= lives[other][1]
        )
        place = 0
        for begin, end in taken:
            if place + sizes[value] <= begin:
                break
            place = max(place, end)
        places[value] = place
    return places, max((places[value] + sizes[value] for value in places), default=0)


def ranges_of(
    kernels: Kernels, nodes: Sequence[Node], x: Value, images: np.ndarray
) -> List[Tuple[float, float]]:
    """The ranges of the images and of what every node makes of them, in order.

    Args:
        x: of one image.
        images: ``(N, H, W, C)`` float32.
    """
    outputs = {str(number): node.y for number, node in enumerate(nodes)}
    plan = Plan(kernels, nodes, x, outputs, Weights(), FLOAT)
    found = [
        [range_of(maps) for maps in plan(images[index : index + 1]).values()]
        for index in range(len(images))
    ]
    return [range_of(images), *map(tuple, np.mean(found, axis=0).tolist())]
