"""What training minimises."""

from typing import Callable, Optional

import megengine.functional as F
import numpy as np
from megengine import Tensor

from ..engine.schema import Loss

Criterion = Callable[[Tensor, Tensor], Tensor]


def loss_of(section: Loss, class_weights: Optional[np.ndarray] = None) -> Criterion:
    """The loss that ``section`` describes.

    It takes ``(N, C)`` logits and either ``(N,)`` class numbers or ``(N, C)`` shares of the
    classes, which is what mixed images have, and returns a scalar in float32: the mean over the
    images.

    - ``softmax``: cross-entropy with the softmax of the logits.
    - ``bce``: every class is a question of its own, answered by the sigmoid of its logit, and the
      binary cross-entropies of an image are added up (Wightman et al., arXiv:2110.00476). The sum
      is MMPreTrain's; timm's default is their mean (``over_classes``), C times smaller, which
      matters where gradients are clipped. With ``mixed: all`` each class that a mixed image has a
      share of is there, which is what the paper proposes.

    Label smoothing turns shares t into ``t (1 - eps) + eps / C`` for both (Szegedy et al.,
    arXiv:1512.00567, section 7).

    ``class_weights``, ``(C,)`` float32, multiply each class's term of ``softmax``, as PyTorch's
    ``weight`` does, and each image's whole loss of ``bce``. The mean stays one over images, not
    over weights: it does not depend on how the images are spread over batches and devices.
    """
    compute = {"softmax": _softmax, "bce": _binary}[section.type]
    weights = None if class_weights is None else Tensor(class_weights)
    return lambda logits, targets: compute(logits.astype("float32"), targets, section, weights)


def _softmax(logits: Tensor, targets: Tensor, how: Loss, weights: Optional[Tensor]) -> Tensor:
    if targets.ndim == 1 and weights is None:
        return F.nn.cross_entropy(logits, targets, label_smooth=how.label_smoothing)
    targets = _smooth(_shares(logits, targets), how.label_smoothing)
    if weights is not None:
        targets = targets * weights
    return -(targets * F.logsoftmax(logits, axis=1)).sum(axis=1).mean()


def _binary(logits: Tensor, targets: Tensor, how: Loss, weights: Optional[Tensor]) -> Tensor:
    shares = _shares(logits, targets)
    present = (shares > 0).astype("float32") if how.mixed == "all" else shares
    smooth = _smooth(present, how.label_smoothing)
    losses = F.nn.binary_cross_entropy(logits, smooth, reduction="none")
    losses = losses.mean(axis=1) if how.over_classes == "mean" else losses.sum(axis=1)
    if weights is not None:
        losses = losses * (shares * weights).sum(axis=1)
    return losses.mean()


def _shares(logits: Tensor, targets: Tensor) -> Tensor:
    """``(N, C)`` shares of the classes, from class numbers or as they are."""
    if targets.ndim > 1:
        return targets
    return F.one_hot(targets, logits.shape[1]).astype("float32")


def _smooth(targets: Tensor, smoothing: float) -> Tensor:
    if smoothing == 0:
        return targets
    return targets * (1 - smoothing) + smoothing / targets.shape[1]
