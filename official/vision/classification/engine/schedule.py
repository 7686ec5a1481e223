"""The learning rate as a pure function of the step."""

import math
from bisect import bisect_right

from .recipe import Schedule


def learning_rate(
    step: int, steps_per_epoch: int, epochs: int, total_lr: float, schedule: Schedule
) -> float:
    """The rate of step ``step``, counted from 0.

    Warm-up rises linearly from zero (Goyal et al., arXiv:1706.02677, section 2.2). Then either
    the rate is multiplied by ``gamma`` at every milestone, or it falls to zero along half a
    cosine (Loshchilov and Hutter, arXiv:1608.03983).
    """
    epoch = step / steps_per_epoch
    if epoch < schedule.warmup_epochs:
        return total_lr * epoch / schedule.warmup_epochs
    if schedule.type == "multistep":
        # Whole steps, so that a milestone that is not a whole epoch is not missed by rounding.
        milestones = [round(epoch * steps_per_epoch) for epoch in schedule.milestones]
        return total_lr * schedule.gamma ** bisect_right(milestones, step)
    progress = (epoch - schedule.warmup_epochs) / (epochs - schedule.warmup_epochs)
    return total_lr * 0.5 * (1 + math.cos(math.pi * progress))
