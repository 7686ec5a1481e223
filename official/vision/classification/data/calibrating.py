"""The images by which a network in int8 settles what its bytes stand for."""

import contextlib
import logging
from pathlib import Path
from typing import Callable, Optional, Tuple

import numpy as np

from ..errors import DataError, UsageError
from ..ops.quantize import Calibration, LayerRanges
from ..preprocess import Preprocess
from .image import EXTENSIONS, read_image
from .normalize import Normalize
from .transforms import EvalTransform, to_network_layout

IMAGES = 64

logger = logging.getLogger(__name__)

# How many images there are, and what reads one of them as (H, W, 3) uint8, BGR.
Source = Tuple[int, Callable[[int], np.ndarray]]


def calibration_of(
    precision: str,
    folder: Optional[str],
    stated: Optional[LayerRanges],
    otherwise: Source,
    preprocess: Preprocess,
) -> Optional[Calibration]:
    """What int8 is calibrated by, which is said; None for other precisions.

    Args:
        folder: of images.
        stated: in the weights' file, which counts where no folder is named.
        otherwise: the images that count where neither is there.

    Raises:
        UsageError: as these functions, and for a folder that is not for int8.
    """
    if precision != "int8":
        if folder is not None:
            raise UsageError(f"--calibration {folder}: is for --precision int8")
        return None
    if stated is not None and folder is None:
        logger.warning("int8: calibrated as the weights' file states; --calibration DIR overrides")
        return stated
    if folder is not None:
        return calibration_images(images_below(folder), folder, preprocess)
    return calibration_images(otherwise, "those given; --calibration DIR names others", preprocess)


def calibration_images(source: Source, told: str, preprocess: Preprocess) -> np.ndarray:
    """Up to ``IMAGES`` images, ``(N, 3, H, W)`` float32, as the network gets them.

    Args:
        source: the images, of which some are chosen evenly.
        told: which these are.

    Raises:
        UsageError: where none can be read, or they are not brought to one size.
    """
    count, read = source
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
    logger.warning("int8: calibrated on %d images of %s", len(images), told)
    return normalize(np.stack(images)).numpy()


def images_below(folder: str) -> Source:
    """The images of ``--calibration`` and of all folders in it, in the order of their names.

    Raises:
        UsageError: where there are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"--calibration {folder}: no such folder")
    named = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS)
    paths = sorted(str(path) for path in named if path.is_file())
    if not paths:
        raise UsageError(f"--calibration {folder}: no images in it")
    return len(paths), lambda index: read_image(paths[index])
