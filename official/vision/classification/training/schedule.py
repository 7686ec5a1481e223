"""The learning rate as a pure function of the step."""

import math
from bisect import bisect_right

from ..engine.schema import Schedule


def learning_rate(
    step: int, steps_per_epoch: int, epochs: int, total_lr: float, schedule: Schedule
) -> float:
    """The rate of step ``step``, counted from 0.

    While ``step < warmup_epochs * steps_per_epoch`` the rate rises linearly from
    ``warmup_start * total_lr``, so that the first step after it would have ``total_lr`` (Goyal et
    al., arXiv:1706.02677, section 2.2), or stays there (constant; He et al., arXiv:1512.03385,
    section 4.2). Then either it is multiplied by ``gamma`` at every milestone, or it falls from
    ``total_lr`` to ``final_lr`` along half a cosine (Loshchilov and Hutter, arXiv:1608.03983),
    with every step or, as MMPreTrain's does, at the start of every epoch only.

    Args:
        steps_per_epoch: updates of the weights in an epoch.
        total_lr: the rate for the whole batch over all devices.

    MMEngine's warm-up has its full rate one step earlier, on the last of the warm-up's n steps:
    its rates are at most 1 / (n - 1) above these, as a share.
    """
    epoch = step / steps_per_epoch
    if epoch < schedule.warmup_epochs:
        warmth = epoch / schedule.warmup_epochs if schedule.warmup_shape == "linear" else 0.0
        return total_lr * (schedule.warmup_start + (1 - schedule.warmup_start) * warmth)
    if schedule.type == "multistep":
        # Whole steps, so that a milestone that is not a whole epoch is not missed by rounding.
        milestones = [round(epoch * steps_per_epoch) for epoch in schedule.milestones]
        return total_lr * schedule.gamma ** bisect_right(milestones, step)
    if schedule.every == "epoch":
        epoch = max(step // steps_per_epoch, schedule.warmup_epochs)
    progress = (epoch - schedule.warmup_epochs) / (epochs - schedule.warmup_epochs)
    fall = total_lr - schedule.final_lr
    return schedule.final_lr + fall * 0.5 * (1 + math.cos(math.pi * progress))
