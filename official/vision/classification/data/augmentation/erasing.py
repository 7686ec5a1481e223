"""Random erasing (Zhong et al., arXiv:1708.04896)."""

from typing import Optional, Tuple

import numpy as np

from .rectangle import draw_rectangle


def random_erasing(
    image: np.ndarray,
    probability: float,
    rng: np.random.Generator,
    area: Tuple[float, float] = (0.02, 0.4),
    aspect: Tuple[float, float] = (0.3, 1 / 0.3),
    fill: Optional[Tuple[float, float, float]] = None,
) -> np.ndarray:
    """Put noise in place of a random rectangle, with ``probability``; ``(H, W, 3)`` uint8.

    Its area is a share of the image's, uniform in ``area``; its height over width is log-uniform
    in ``aspect``, which favours neither upright nor lying rectangles (the paper draws it
    uniformly). Every byte of it is uniform from 0 to 255: the paper's RE-R, and what can be done
    before normalisation; or it is ``fill``, rounded, in the image's order of channels (RE-M, for
    the mean). An image that no rectangle fits in ten attempts is left as it is.
    """
    if rng.random() >= probability:
        return image
    box = draw_rectangle(image.shape[:2], area, aspect, rng)
    if box:
        top, left, height, width = box
        image = image.copy()
        if fill is None:
            erased = rng.integers(0, 256, (height, width, 3), np.uint8)
        else:
            erased = np.round(fill).astype(np.uint8)
        image[top : top + height, left : left + width] = erased
    return image
