"""A random rectangle by its share of an area and its proportions."""

import math
from typing import Optional, Tuple

import numpy as np

Range = Tuple[float, float]


def draw_rectangle(
    edges: Tuple[int, ...], area: Range, aspect: Range, rng: np.random.Generator
) -> Optional[Tuple[int, int, int, int]]:
    """A rectangle within two edges, or None when ten attempts do not fit.

    Args:
        edges: lengths in pixels, such as width and height.
        area: its share of their product is uniform in this range.
        aspect: its first edge over its second is log-uniform in this one.

    Returns:
        where it starts along the first edge and along the second, and its two lengths.
    """
    for _ in range(10):
        target = rng.uniform(*area) * edges[1] * edges[0]
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        first = int(round(math.sqrt(target * ratio)))
        second = int(round(math.sqrt(target / ratio)))
        if 0 < first <= edges[0] and 0 < second <= edges[1]:
            start = int(rng.integers(0, edges[0] - first + 1))
            return start, int(rng.integers(0, edges[1] - second + 1)), first, second
    return None
