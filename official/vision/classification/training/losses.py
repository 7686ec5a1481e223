"""What training minimises."""

from typing import Callable

import megengine.functional as F
from megengine import Tensor

from ..engine.schema import Loss

Criterion = Callable[[Tensor, Tensor], Tensor]


def loss_of(section: Loss) -> Criterion:
    """The loss that ``section`` describes.

    It takes ``(N, C)`` logits and either ``(N,)`` class numbers or ``(N, C)`` shares of the
    classes, which is what mixed images have, and returns a scalar in float32: the mean over the
    images.

    - ``softmax``: cross-entropy with the softmax of the logits.
    - ``bce``: every class is a question of its own, answered by the sigmoid of its logit, and the
      binary cross-entropies of an image are added up (Wightman et al., arXiv:2110.00476). The sum
      is MMPreTrain's; timm's default is their mean, C times smaller, which matters where gradients
      are clipped.

    Label smoothing turns shares t into ``t (1 - eps) + eps / C`` for both (Szegedy et al.,
    arXiv:1512.00567, section 7).
    """
    compute = {"softmax": _softmax, "bce": _binary}[section.type]
    smoothing = section.label_smoothing
    return lambda logits, targets: compute(logits.astype("float32"), targets, smoothing)


def _softmax(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    if targets.ndim == 1:
        return F.nn.cross_entropy(logits, targets, label_smooth=smoothing)
    targets = _smooth(targets, smoothing)
    return -(targets * F.logsoftmax(logits, axis=1)).sum(axis=1).mean()


def _binary(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1]).astype("float32")
    targets = _smooth(targets, smoothing)
    return F.nn.binary_cross_entropy(logits, targets, reduction="none").sum(axis=1).mean()


def _smooth(targets: Tensor, smoothing: float) -> Tensor:
    if smoothing == 0:
        return targets
    return targets * (1 - smoothing) + smoothing / targets.shape[1]
