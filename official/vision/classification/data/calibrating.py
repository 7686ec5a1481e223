"""The images by which a network in int8 settles what its bytes stand for."""

import contextlib
import logging
from pathlib import Path
from typing import Callable, Optional, Tuple

import numpy as np

from ..errors import DataError, UsageError
from ..preprocess import Preprocess
from .image import EXTENSIONS, read_image
from .normalize import Normalize
from .transforms import EvalTransform, to_network_layout

IMAGES = 64

logger = logging.getLogger(__name__)

# How many images there are, and what reads one of them as (H, W, 3) uint8, BGR.
Source = Tuple[int, Callable[[int], np.ndarray]]


def calibration_images(
    precision: str, folder: Optional[str], otherwise: Source, preprocess: Preprocess
) -> Optional[np.ndarray]:
    """For int8 up to ``IMAGES`` images, ``(N, 3, H, W)`` float32, as the network gets them.

    Args:
        folder: whose images they are, with all below it, evenly chosen in the order of their
            names; None for those of ``otherwise``, which is said.

    Raises:
        UsageError: for a folder without images or not for int8, or for images that are not brought
            to one size.
    """
    if precision != "int8":
        if folder is not None:
            raise UsageError(f"--calibration {folder}: is for --precision int8")
        return None
    count, read = otherwise if folder is None else _below(folder)
    transform, normalize = EvalTransform(preprocess), Normalize(preprocess)
    images = []
    for index in np.unique(np.linspace(0, count - 1, min(count, IMAGES)).astype(int)).tolist():
        with contextlib.suppress(DataError):  # which is said of those that are computed
            images.append(to_network_layout(transform(read(index)), preprocess.order))
    if not images:
        raise UsageError("int8: none of the images to calibrate on can be read")
    if len({image.shape for image in images}) > 1:
        raise UsageError(
            "int8: the images have several sizes; --preprocess with crop makes them equal"
        )
    where = f"{folder}" if folder else "those given; --calibration DIR names others"
    logger.warning("int8: calibrated on %d images of %s", len(images), where)
    return normalize(np.stack(images)).numpy()


def _below(folder: str) -> Source:
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"--calibration {folder}: no such folder")
    named = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS)
    paths = sorted(str(path) for path in named if path.is_file())
    if not paths:
        raise UsageError(f"--calibration {folder}: no images in it")
    return len(paths), lambda index: read_image(paths[index])
