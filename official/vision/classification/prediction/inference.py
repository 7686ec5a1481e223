"""Classifying images from Python: ``inference_model``."""

import contextlib
import logging
import os
import sys
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Union

import cv2
import megengine.module as M
import numpy as np

from ..data.image import decode_image, read_image
from ..data.normalize import Normalize
from ..data.transforms import EvalTransform, to_network_layout
from ..engine.scoring import Scorer, top_scores
from ..errors import DataError, UsageError, explained_threads
from ..ops.accelerate import CompiledOps, compiled_ops
from ..ops.build import KernelsUnavailable
from ..ops.cores import cpu_threads
from ..ops.plain import Layer, PlainOps
from ..ops.process import count_gpus
from ..zoo.models import get_model
from ..zoo.trained import Network
from .images import read_bounded, refuse_address

logger = logging.getLogger(__name__)


def inference_model(
    name_or_model: Union[str, M.Module], image: Any, top_k: int = 5
) -> Union[Dict[str, Any], List[Dict[str, Any]]]:
    """Classify an image, or each image of a list, prepared as the weights require.

    On a CPU a network of ours is compiled at its first image (``get_model(..., compiled=True)``
    does so as well); from then on any thread may ask.

    Args:
        name_or_model: a network's or a published row's name, whose weights are then loaded; or a
            network that ``get_model(..., pretrained=...)`` has filled, which is left in the mode
            it is in.
        image: an image file as its path, its bytes, or an object open for reading in binary mode;
            a PIL image; pixels as ``(H, W, 3)`` uint8 in BGR; or a list or tuple of these.
        top_k: how many classes are returned.

    Returns:
        ``pred_label`` (int), ``pred_class`` and ``pred_score`` of the most probable class, and
        ``top_k``: a list of the same three for each of the first, best first. For a list of
        images, a list of such dicts.

    Raises:
        UsageError: for an unknown name, a network that does not know how its images are
            prepared or has lost its classifier, or a ``top_k`` below 1; in a thread that MegEngine
            was not imported in.
        WeightsError: when the weights cannot be had or do not fit.
        DataError: when an image cannot be read.
    """
    if top_k < 1:
        raise UsageError(f"top_k is {top_k}; expected 1 or more")
    several = isinstance(image, (list, tuple))
    # A single image is read before weights are fetched; of several, one is held at a time.
    pixels: Iterable[np.ndarray] = map(_pixels, image) if several else [_pixels(image)]
    model = name_or_model
    if isinstance(model, str):
        model = get_model(model, pretrained=True)
    network = _network_of(model)
    # A plan is of evaluation, whichever mode the network is in, and leaves that to other threads.
    with explained_threads(), contextlib.nullcontext() if _plans_of(model) else _evaluating(model):
        results = [_classify(network, one, top_k) for one in pixels]
    return results if several else results[0]


def _classify(network: Network, image: np.ndarray, top_k: int) -> Dict[str, Any]:
    preprocess = network.preprocess
    pixels = to_network_layout(EvalTransform(preprocess)(image), preprocess.order)
    ops = getattr(network.model, "ops", None)  # a user's own network may have none
    compute: Callable[[Any], Any] = network.model
    plans = _plans_of(network.model)
    if plans is not None:
        ops, compute = plans, partial(plans.whole, network.model, _evaluated)
    logits = Scorer(compute, Normalize(preprocess, ops))(pixels[None]).logits
    (top,) = top_scores(logits, network.names, top_k)
    scores = [
        {"pred_label": s.index, "pred_class": s.name, "pred_score": s.probability} for s in top
    ]
    return {**scores[0], "top_k": scores}


@lru_cache(maxsize=None)
def _plans() -> Optional[CompiledOps]:
    """What computes networks on a CPU that are left to MegEngine's kernels; None without."""
    try:
        return compiled_ops(cpu_threads(), any_mode=True)
    except KernelsUnavailable as reason:
        logger.warning("no native kernels, so the CPU will be slow: %s", reason)
        return None


def _plans_of(model: M.Module) -> Optional[CompiledOps]:
    """``_plans`` for a network of ours that has no faster kernels by itself, on a CPU."""
    plain = isinstance(model, Layer) and type(model.ops) is PlainOps
    return _plans() if plain and _on_cpu(model) else None


def _on_cpu(model: M.Module) -> bool:
    if count_gpus() == 0:
        return True  # without asking MegEngine, which answers in the thread that imported it only
    return {str(each.device)[:3] for each in model.parameters()} == {"cpu"}


def _evaluated(model: M.Module, x: Any) -> Any:
    with _evaluating(model):
        return model(x)


def _pixels(image: Any) -> np.ndarray:
    """``(H, W, 3)`` uint8, BGR."""
    if isinstance(image, (str, os.PathLike)):
        refuse_address(str(image))
        return read_image(str(image))
    if isinstance(image, (bytes, bytearray, memoryview)):
        return decode_image(bytes(image), "bytes of an image")
    if isinstance(image, np.ndarray):
        return _checked(image)
    pil = sys.modules.get("PIL.Image")  # without it nobody has such an image
    if pil is not None and isinstance(image, pil.Image):
        return _from_pil(image)
    if hasattr(image, "read"):
        name = str(getattr(image, "name", "open file"))
        return decode_image(read_bounded(image, name), name)
    raise DataError(
        f"an image is of type {type(image).__name__}; expected a path, bytes, an open file, a PIL "
        "image or an array"
    )


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise DataError(
            f"an image is {image.dtype} of shape {image.shape}; expected uint8 of (H, W, 3), BGR"
        )
    return image


def _from_pil(image: Any) -> np.ndarray:
    """Turned upright by its EXIF tag and without transparency, as files are read."""
    from PIL import ImageOps  # as above

    if image.mode.startswith(("I", "F")):  # Pillow would cut values above 255 off
        raise DataError(f"a PIL image of mode {image.mode}: scale it to 8 bits, as by point()")
    try:
        upright = ImageOps.exif_transpose(image) or image
        rgb = np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:  # decoded only now, and damaged
        raise DataError(f"a PIL image cannot be read: {error}") from None
    return _checked(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR) if rgb.size else rgb)


def _network_of(model: M.Module) -> Network:
    config = getattr(model, "pretrained_config", None)
    if config is None:
        raise UsageError(
            "the network does not know how its images are prepared: give a name, or a network "
            "from get_model(..., pretrained=...)"
        )
    count = getattr(getattr(model, "fc", None), "out_features", None)
    if count is None:
        raise UsageError("the network has no classifier, a Linear layer called fc; give it one")
    # A classifier put in later has other classes than the weights had.
    classes = config.classes if config.classes and len(config.classes) == count else None
    return Network(model, replace(config, num_classes=count, classes=classes))


@contextlib.contextmanager
def _evaluating(model: M.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module, frozen ones too, is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.train(training, recursive=False)
