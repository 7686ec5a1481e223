"""From uint8 images to what the network computes with, on the device."""

from typing import Optional

import numpy as np
from megengine import Tensor

from ..ops.plain import PlainOps
from ..preprocess import Preprocess


class Normalize:
    """``(N, 3, H, W)`` uint8 to ``(x - mean) / std`` per channel.

    It runs on the device: a quarter of the bytes cross to it, and no CPU core that decodes
    images is spent on arithmetic. The result's values lie in memory as ``(N, H, W, 3)``, as images
    do, which is how the CPU kernels want them.

    Args:
        ops: those of the network that is fed, on whose device the result is; MegEngine's own
            without.
        whole: float32 also where that network's maps are bfloat16, for who computes with the
            images before it does.
    """

    def __init__(self, preprocess: Preprocess, ops: Optional[PlainOps] = None, whole: bool = False):
        self.mean, self.std = (
            np.asarray(values, np.float32) for values in (preprocess.mean, preprocess.std)
        )
        self.ops = ops or PlainOps()
        self.whole = whole

    def __call__(self, images: np.ndarray) -> Tensor:
        rows = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return self.ops.normalize(rows, self.mean, self.std, self.whole)
