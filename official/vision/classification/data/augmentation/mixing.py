"""Mixup (Zhang et al., arXiv:1710.09412) and CutMix (Yun et al., arXiv:1905.04899).

What is mixed with what is drawn on the host, as a pure function of (seed, step, rank); the
mixing itself runs on the device.
"""

import math
from typing import NamedTuple, Tuple

import megengine.functional as F
import numpy as np
from megengine import Tensor

from ..sampler import mix_generator


class Mix(NamedTuple):
    """How each image of a batch is mixed with another one of it."""

    kind: str  # "none", "mixup" or "cutmix"
    lam: float  # share of the image itself; the rest is the other's
    permutation: np.ndarray  # (N,) int32, the other image of each
    box: Tuple[int, int, int, int]  # cutmix: top, bottom, left, right of what is the other's


def draw_mix(
    seed: int,
    step: int,
    rank: int,
    size: int,
    height: int,
    width: int,
    mixup: float = 0.0,
    cutmix: float = 0.0,
) -> Mix:
    """The mix of one batch on one rank.

    Args:
        size, height, width: of the batch, in images and pixels.
        mixup, cutmix: alpha of the Beta(alpha, alpha) that the share is drawn from, 0 for none.
            With both, the batch gets one of them at equal odds.
    """
    rng = mix_generator(seed, step, rank)
    kinds = [kind for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]
    if not kinds:
        return Mix("none", 1.0, np.arange(size, dtype=np.int32), (0, 0, 0, 0))
    kind = kinds[int(rng.integers(len(kinds)))]
    alpha = {"mixup": mixup, "cutmix": cutmix}[kind]
    lam = float(rng.beta(alpha, alpha))
    permutation = rng.permutation(size).astype(np.int32)
    if kind == "mixup":
        return Mix(kind, lam, permutation, (0, 0, 0, 0))
    top, bottom, left, right = box = _random_box(rng, lam, height, width)
    # The box is made of whole pixels and may reach beyond the image: its own share is what counts.
    lam = 1 - (bottom - top) * (right - left) / (height * width)
    return Mix(kind, lam, permutation, box)


def _random_box(
    rng: np.random.Generator, lam: float, height: int, width: int
) -> Tuple[int, int, int, int]:
    """Top, bottom, left, right of CutMix's box (section 3.1, equation 2).

    In the image's proportions, with a share of ``1 - lam`` of its area; its centre is anywhere
    in the image, and what sticks out is cut off.
    """
    scale = math.sqrt(1 - lam)
    box_height, box_width = int(height * scale), int(width * scale)
    top = int(rng.integers(height)) - box_height // 2
    left = int(rng.integers(width)) - box_width // 2
    bottom, right = min(top + box_height, height), min(left + box_width, width)
    return max(top, 0), bottom, max(left, 0), right


def apply_mix(images: Tensor, mix: Mix) -> Tensor:
    """``(N, C, H, W)`` images, normalised, to the same; ``images`` itself is not changed."""
    if mix.lam == 1:
        return images
    if mix.kind == "mixup":
        return _blend(images, mix)
    top, bottom, left, right = mix.box
    mixed = F.copy(images)
    others = images[:, :, top:bottom, left:right][Tensor(mix.permutation)]
    mixed[:, :, top:bottom, left:right] = others
    return mixed


def mix_targets(one_hot: Tensor, mix: Mix) -> Tensor:
    """``(N, C)`` class probabilities, in the proportions of the images; float."""
    return one_hot if mix.lam == 1 else _blend(one_hot, mix)


def _blend(values: Tensor, mix: Mix) -> Tensor:
    return values * mix.lam + values[Tensor(mix.permutation)] * (1 - mix.lam)
