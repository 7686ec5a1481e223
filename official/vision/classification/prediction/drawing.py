"""Pictures of results: an image with its classes below, and heat maps by Grad-CAM.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017 (arXiv:1610.02391), section 3.
"""

from typing import List, Sequence, Tuple

import cv2
import numpy as np

from ..data.transforms import Box
from ..engine.lettering import Lettering, drawable
from ..engine.scoring import ClassScore

_WIDTH, _HEIGHT = 480, 960  # of the image in the result, in pixels: a strip is not drawn out
_ROW, _SIZE = 32, 17  # height of a row and of its letters
_NUMBER = 82  # width of the column of numbers
_MARGIN = 8
_GAP = 6  # between the pictures of a heat map
_LEAST = 0.0005  # what is less likely would be written 0.0 %
_WHITE, _INK, _BAR = (255, 255, 255), (40, 40, 40), (240, 205, 160)  # BGR
_WARM, _HOT = (0, 225, 255), (40, 0, 205)  # BGR: yellow where the heat begins, red where it is 1
_OPAQUE = 0.8  # the share of the colour where the heat is 1


def fit(image: np.ndarray) -> np.ndarray:
    """The image as large as 480x960 pixels hold; one that has that size stays as it is."""
    height, width = image.shape[:2]
    scale = min(_WIDTH / width, _HEIGHT / height)
    # Small pictures keep their pixels; large ones are averaged, not sampled.
    interpolation = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    size = (max(1, int(round(scale * width))), max(1, int(round(scale * height))))
    return cv2.resize(image, size, interpolation=interpolation)


def annotate(image: np.ndarray, top: Sequence[ClassScore]) -> np.ndarray:
    """The image, 480 pixels wide, above one row per class: its name on a bar, its probability.

    Classes below 0.05 % are left out, but for the first. An image more than twice as high as wide
    is 960 pixels high, in the middle of a white field.
    """
    shown = [score for score in top if score.probability >= _LEAST] or list(top[:1])
    return np.concatenate([_framed(image), _rows(shown)])


def heat_maps(
    image: np.ndarray, heat: Sequence[np.ndarray], seen: Box, top: Sequence[ClassScore]
) -> np.ndarray:
    """The image beside itself under the heat map of each class, with its name and probability.

    Args:
        image: ``(H, W, 3)`` uint8, BGR.
        heat: a map for each of the first of ``top``, as ``overlay`` takes it.
        seen: the part of the image that the network saw, likewise.
    """
    picture = fit(image)
    panels = [np.concatenate([_framed(picture), _caption("the image")])]
    for one, score in zip(heat, top):
        panels.append(np.concatenate([_framed(overlay(picture, one, seen)), _rows([score])]))
    gap = np.full((len(panels[0]), _GAP, 3), _WHITE, np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def _framed(image: np.ndarray) -> np.ndarray:
    """The image at its size in the result, in the middle of a field 480 pixels wide."""
    picture = fit(image)
    left = (_WIDTH - picture.shape[1]) // 2
    right = _WIDTH - picture.shape[1] - left
    return cv2.copyMakeBorder(picture, 0, 0, left, right, cv2.BORDER_CONSTANT, value=_WHITE)


def _rows(scores: Sequence[ClassScore]) -> np.ndarray:
    """A row for each class; the numbers stand in a column of their own, right of all bars."""
    panel = np.full((_ROW * len(scores) + 2 * _MARGIN, _WIDTH, 3), _WHITE, np.uint8)
    room = _WIDTH - 2 * _MARGIN - _NUMBER
    for row, score in enumerate(scores):
        top = _MARGIN + row * _ROW
        length = int(round(room * score.probability))
        panel[top + 2 : top + _ROW - 2, _MARGIN : _MARGIN + length] = _BAR
    words = Lettering(panel)
    for row, score in enumerate(scores):
        middle = _MARGIN + row * _ROW + _ROW // 2
        name = drawable(score.name, score.index)
        words.write(name, _MARGIN + 8, middle, _SIZE, _INK, room - 16)
        number = f"{100 * score.probability:.1f} %"
        words.write(number, _WIDTH - _MARGIN, middle, _SIZE, _INK, _NUMBER, right=True)
    return words.picture()


def _caption(text: str) -> np.ndarray:
    panel = np.full((_ROW + 2 * _MARGIN, _WIDTH, 3), _WHITE, np.uint8)
    words = Lettering(panel)
    words.write(text, _MARGIN + 8, len(panel) // 2, _SIZE, _INK, _WIDTH - 2 * _MARGIN)
    return words.picture()


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


def heat_of(
    maps: np.ndarray, classifier: np.ndarray, top: Sequence[ClassScore]
) -> List[np.ndarray]:
    """Heat maps, as ``grad_cam`` makes them, of an image's first two classes.

    Args:
        maps: ``(K, H, W)``, the image's.
    """
    return [grad_cam(maps[None], classifier, np.array([score.index]))[0] for score in top[:2]]


def overlay(picture: np.ndarray, heat: np.ndarray, seen: Box) -> np.ndarray:
    """The picture under colours as opaque as the heat; darker where the network did not see it.

    What has no heat stays as it is, so that one sees what is there and what counted.

    Args:
        picture: ``(H, W, 3)`` uint8, BGR.
        heat: ``(h, w)`` from 0 to 1.
        seen: top, left, bottom and right of what the network saw, as shares of the edges.
    """
    height, width = picture.shape[:2]
    top, bottom = _pixels(seen[0], seen[2], height)
    left, right = _pixels(seen[1], seen[3], width)
    heat = cv2.resize(heat, (right - left, bottom - top), interpolation=cv2.INTER_CUBIC)
    heat = np.clip(heat, 0, 1)[..., None]
    warm, hot = np.array(_WARM, np.float32), np.array(_HOT, np.float32)
    colours = warm + heat * (hot - warm)
    part = picture[top:bottom, left:right]
    result = picture // 2
    mixed = part + _OPAQUE * heat * (colours - part)
    result[top:bottom, left:right] = np.round(mixed).astype(np.uint8)
    return result


def _pixels(first: float, last: float, length: int) -> Tuple[int, int]:
    """Whole pixels from share ``first`` to share ``last`` of an edge; at least one."""
    start = min(int(round(first * length)), length - 1)
    return start, max(start + 1, int(round(last * length)))
