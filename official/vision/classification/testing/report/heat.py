"""What speaks for an answer: the image under the heat map of a class."""

import cv2
import megengine.module as M
import numpy as np

from ...data.normalize import Normalize
from ...data.transforms import EvalTransform, to_network_layout
from ...engine.scoring import Scorer
from ...prediction.drawing import grad_cam, overlay
from ...preprocess import Preprocess

_EDGE = 320  # of a picture, about


class HeatMaps:
    """Draws heat maps of a network in evaluation mode, one image at a time."""

    def __init__(self, model: M.Module, normalize: Normalize, preprocess: Preprocess):
        self._score = Scorer(model, normalize, with_maps=True)
        self._classifier = model.fc.weight
        self._transform = EvalTransform(preprocess)
        self._order = preprocess.order

    def __call__(self, image: np.ndarray, index: int) -> np.ndarray:
        """``image``, (H, W, 3) uint8 BGR, under the Grad-CAM of class ``index``."""
        crop, seen = self._transform.with_box(image)
        maps = self._score(to_network_layout(crop, self._order)[None]).maps
        assert maps is not None
        (heat,) = grad_cam(maps, self._classifier.numpy(), np.array([index]))
        scale = _EDGE / max(image.shape[:2])
        small = image
        if scale < 1:
            height, width = (max(1, int(round(scale * edge))) for edge in image.shape[:2])
            small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return overlay(small, heat, seen)
