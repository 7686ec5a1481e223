"""Which parts of a picture speak for a class: Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017 (arXiv:1610.02391), section 3.
"""

from typing import Tuple

import cv2
import numpy as np

_SHARE = 0.5  # of the colours in the mixture with the photograph


def grad_cam(maps: np.ndarray, classifier: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Heat maps of one class per image, each from 0 to 1.

    The network must end in the mean over ``maps`` and a linear classifier, as all networks here
    do. The gradient of a class's logit by any pixel of channel k is then the classifier's weight
    for k over the number of pixels, so that nothing need be propagated (ibid., section 3.1).

    Args:
        maps: ``(N, K, H, W)``, the last stage's output (``res5``).
        classifier: ``(classes, K)``, the weights.
        labels: ``(N,)``, which class is asked about.

    Returns:
        ``(N, H, W)`` float32: the positive part of the channels' weighted sum, divided by its
        maximum. It is zero where nothing speaks for the class.
    """
    height, width = maps.shape[2:]
    gradients = classifier[labels].astype(np.float32) / (height * width)  # (N, K)
    heat = np.maximum(np.einsum("nk,nkhw->nhw", gradients, maps.astype(np.float32)), 0)
    most = heat.max(axis=(1, 2), keepdims=True)
    return np.divide(heat, most, out=np.zeros_like(heat), where=most > 0)


def overlay(
    picture: np.ndarray, heat: np.ndarray, seen: Tuple[float, float, float, float]
) -> np.ndarray:
    """The picture, coloured from blue (0) to red (1) where the network saw it, darker elsewhere.

    Args:
        picture: ``(H, W, 3)`` uint8, BGR.
        heat: ``(h, w)`` from 0 to 1.
        seen: top, left, bottom and right of what the network saw, as shares of the edges.
    """
    height, width = picture.shape[:2]
    top, bottom = _pixels(seen[0], seen[2], height)
    left, right = _pixels(seen[1], seen[3], width)
    heat = cv2.resize(heat, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    colours = cv2.applyColorMap(np.round(255 * heat).astype(np.uint8), cv2.COLORMAP_JET)
    result = picture // 2
    part = picture[top:bottom, left:right]
    result[top:bottom, left:right] = cv2.addWeighted(part, 1 - _SHARE, colours, _SHARE, 0)
    return result


def _pixels(first: float, last: float, length: int) -> Tuple[int, int]:
    """Whole pixels from share ``first`` to share ``last`` of an edge; at least one."""
    start = min(int(round(first * length)), length - 1)
    return start, max(start + 1, int(round(last * length)))
