"""Names beside points, none upon another."""

from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

GAP = 6  # pixels between a point's middle and its name
POINT = 5  # half a point's edge
ROW = 13  # pixels from a line of text to the next


Point = Tuple[float, float]


class Box(NamedTuple):
    """A rectangle in pixels; y runs upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: "Box") -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def within(self, other: "Box") -> bool:
        return (
            other.left <= self.left
            and self.right <= other.right
            and other.bottom <= self.bottom
            and self.top <= other.top
        )

    def contains(self, point: Point) -> bool:
        x, y = point
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    def crossed_by(self, start: Point, end: Point) -> bool:
        """Whether a straight line passes through."""
        steps = [index / 24 for index in range(25)]
        return any(
            self.left < start[0] + (end[0] - start[0]) * part < self.right
            and self.bottom < start[1] + (end[1] - start[1]) * part < self.top
            for part in steps
        )


class Label(NamedTuple):
    """Where a name stands, and where the line to its point, if it needs one, begins."""

    box: Box
    leader: Point
    far: bool


def text_width(words: str, points: float) -> float:
    """Of a line in the pictures' font, in points."""
    font = FontProperties(family="DejaVu Sans", size=points)
    width, _, _ = TextToPath().get_text_width_height_descent(words, font, ismath=False)
    return width


def place_labels(
    points: Sequence[Point], widths: Sequence[float], sheet: Box, others: Sequence[Point] = ()
) -> List[Label]:
    """A place for the name of each point, the nearest that is free.

    Args:
        points: in pixels, y upwards.
        widths: of the names.
        sheet: what they have to stay on.
        others: points that have no names, and are not to be covered.

    Raises:
        ValueError: where there is no room.
    """
    order = list(range(len(points)))
    for _ in range(len(points) ** 2):
        placed, failed = _place(points, widths, sheet, order, others)
        if failed is None:
            return [placed[index] for index in range(len(points))]
        order.remove(failed)  # next time it chooses first
        order.insert(0, failed)
    raise ValueError(f"no room for the name of point {failed}")


def _place(
    points: Sequence[Point],
    widths: Sequence[float],
    sheet: Box,
    order: Sequence[int],
    others: Sequence[Point],
) -> Tuple[Dict[int, Label], Optional[int]]:
    """Labels for points in this order, and the first point for whose name there is no room."""
    marks = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in points]
    nameless = [Box(x - POINT, y - POINT, x + POINT, y + POINT) for x, y in others]
    placed: Dict[int, Label] = {}
    for index in order:
        taken = [*marks[:index], *marks[index + 1 :], *(label.box for label in placed.values())]
        crossed = [box for box in taken if not box.contains(points[index])]  # marks may coincide
        taken += nameless  # which a thin line may cross
        leaders = [(points[other], label.leader) for other, label in placed.items() if label.far]
        for label in candidates(points[index], widths[index]):
            leader = (points[index], label.leader)
            if (
                label.box.within(sheet)
                and not any(label.box.overlaps(box) for box in taken)
                and not any(label.box.crossed_by(*other) for other in leaders)
                and not (label.far and any(box.crossed_by(*leader) for box in crossed))
            ):
                placed[index] = label
                break
        else:
            return placed, index
    return placed, None


def candidates(point: Point, width: float) -> Iterator[Label]:
    """Places around a point, the best first."""
    x, y = point
    places = []
    for rise in range(-60, 61, 3):
        for away in (0, 10, 20, 34, 48):
            for side in (1, -1):
                start = x + side * (GAP + away)
                left = start if side > 0 else start - width
                box = Box(left, y + rise - ROW / 2, left + width, y + rise + ROW / 2)
                far = away > 0 or abs(rise) > 4
                cost = abs(rise) + 0.8 * away + (1 if side < 0 else 0) + (6 if far else 0)
                if away or abs(rise) <= 4:
                    places.append((cost, Label(box, (start, y + rise), far)))
    for side in (1, -1):
        middle = y + side * (GAP + ROW / 2)
        box = Box(x - width / 2, middle - ROW / 2, x + width / 2, middle + ROW / 2)
        places.append((3.0 if side > 0 else 3.5, Label(box, (x, middle), False)))
    yield from (label for _, label in sorted(places, key=lambda place: place[0]))
