"""Pictures of results: an image with its classes below, and heat maps by Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017 (arXiv:1610.02391), section 3.
"""

from typing import Sequence, Tuple

import cv2
import numpy as np

from ..data.transforms import Box
from ..engine.scoring import ClassScore

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_WIDTH, _HEIGHT = 480, 960  # of the image in the result, in pixels: a strip is not drawn out
_ROW = 30
_WHITE, _INK, _BAR = (255, 255, 255), (40, 40, 40), (230, 190, 140)  # BGR
_HEAT_SHARE = 0.5  # of the colours of a heat map in the mixture with the image


def fit(image: np.ndarray) -> np.ndarray:
    """The image as large as 480x960 pixels hold; one that has that size stays as it is."""
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    # Small pictures keep their pixels; large ones are averaged, not sampled.
    interpolation = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    size = (max(1, int(round(scale * width))), max(1, int(round(scale * height))))
    return cv2.resize(image, size, interpolation=interpolation)


def annotate(image: np.ndarray, top: Sequence[ClassScore]) -> np.ndarray:
    """The image, 480 pixels wide, above one row per class: a bar, its name, its probability.

    An image more than twice as high as wide is 960 pixels high, in the middle of a white field.
    """
    picture = fit(image)
    left = (_WIDTH - picture.shape[1]) // 2
    right = _WIDTH - picture.shape[1] - left
    picture = cv2.copyMakeBorder(picture, 0, 0, left, right, cv2.BORDER_CONSTANT, value=_WHITE)
    panel = np.full((_ROW * len(top) + 10, _WIDTH, 3), _WHITE, np.uint8)
    for row, score in enumerate(top):
        y = 5 + row * _ROW
        length = int(round((_WIDTH - 10) * score.probability))
        cv2.rectangle(panel, (5, y + 2), (5 + length, y + _ROW - 3), _BAR, cv2.FILLED)
        _write(panel, score.name.replace("_", " "), (12, y + 21))
        _write(panel, f"{100 * score.probability:.1f} %", (_WIDTH - 90, y + 21))
    return np.concatenate([picture, panel])


def _write(panel: np.ndarray, text: str, position: tuple) -> None:
    text = text.encode("ascii", "replace").decode()  # the font has no other letters
    cv2.putText(panel, text, position, _FONT, 0.55, _INK, 1, cv2.LINE_AA)


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


def overlay(picture: np.ndarray, heat: np.ndarray, seen: Box) -> np.ndarray:
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
    result[top:bottom, left:right] = cv2.addWeighted(part, 1 - _HEAT_SHARE, colours, _HEAT_SHARE, 0)
    return result


def _pixels(first: float, last: float, length: int) -> Tuple[int, int]:
    """Whole pixels from share ``first`` to share ``last`` of an edge; at least one."""
    start = min(int(round(first * length)), length - 1)
    return start, max(start + 1, int(round(last * length)))
