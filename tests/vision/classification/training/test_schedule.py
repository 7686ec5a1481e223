"""Schedules against their closed forms, each at every step of a run."""

import math

import numpy as np
import pytest

from official.vision.classification.engine.schema import Schedule
from official.vision.classification.training.schedule import learning_rate


def rates_of(schedule, steps_per_epoch, epochs, lr):
    last = steps_per_epoch * epochs
    return [learning_rate(step, steps_per_epoch, epochs, lr, schedule) for step in range(last)]


def seed_rate(step, steps_per_epoch, lr):
    """MegEngine/Models' train.py: five epochs from zero, then tenths after 30, 60 and 80."""
    if step < 5 * steps_per_epoch:
        return lr * step / (5 * steps_per_epoch)
    passed = sum(step >= epoch * steps_per_epoch for epoch in (30, 60, 80))
    return lr * 10.0**-passed


def test_multistep_is_megengine_models():
    schedule = Schedule(milestones=(30, 60, 80), gamma=0.1, warmup_epochs=5)
    rates = rates_of(schedule, 7, 90, 0.2)
    assert rates[0] == 0
    assert rates == pytest.approx([seed_rate(step, 7, 0.2) for step in range(90 * 7)], rel=1e-12)


@pytest.mark.parametrize("steps_per_epoch", [1, 3, 390, 5004])
def test_a_milestone_holds_from_its_first_step(steps_per_epoch):
    schedule = Schedule(milestones=(2, 5), gamma=0.2)
    for milestone, before, after in ((2, 1, 0.2), (5, 0.2, 0.04)):
        step = milestone * steps_per_epoch
        for offset, expected in ((-1, before), (0, after)):
            found = learning_rate(step + offset, steps_per_epoch, 8, 1.0, schedule)
            assert found == pytest.approx(expected, rel=1e-15)


def test_a_milestone_within_an_epoch_takes_effect_at_the_nearest_step():
    assert rates_of(Schedule(milestones=(1.5,)), 4, 3, 1.0) == pytest.approx([1.0] * 6 + [0.1] * 6)
    assert rates_of(Schedule(milestones=(0.7,)), 5, 1, 1.0) == pytest.approx([1.0] * 4 + [0.1])
    thirds = Schedule(milestones=(1 / 3, 2 / 3))  # 1 / 3 * 30 is not quite ten in binary
    assert rates_of(thirds, 30, 1, 1.0) == pytest.approx([1.0] * 10 + [0.1] * 10 + [0.01] * 10)


@pytest.mark.parametrize("final_lr", [0.0, 1e-3])
def test_cosine_is_mindcvs(final_lr):
    """Half a cosine over all steps; here by its half-angle, cos^2, in numpy's float64."""
    rates = rates_of(Schedule(type="cosine", final_lr=final_lr), 11, 120, 0.1)
    angle = np.pi / 2 * np.arange(11 * 120, dtype=np.float64) / (11 * 120)
    assert np.allclose(
        rates, final_lr + (0.1 - final_lr) * np.cos(angle) ** 2, rtol=1e-12, atol=1e-16
    )
    assert rates[0] == pytest.approx(0.1, rel=1e-15)
    end = learning_rate(11 * 120, 11, 120, 0.1, Schedule(type="cosine", final_lr=final_lr))
    assert end == pytest.approx(final_lr, abs=1e-17)


@pytest.mark.parametrize(
    ("epochs", "lr", "start", "final_lr"),
    [(600, 0.005, 1e-4, 1e-6), (100, 0.008, 1e-4, 1e-6), (100, 0.01, 0.01, 0.0)],
)
def test_cosine_by_epoch_is_mmpretrains(epochs, lr, start, final_lr):
    """Its chain of factors, each from the rate of the epoch before, against our closed form."""
    schedule = Schedule(
        type="cosine", final_lr=final_lr, every="epoch", warmup_epochs=5, warmup_start=start
    )
    rates = rates_of(schedule, 9, epochs, lr)
    for step in range(45):
        assert rates[step] == pytest.approx(lr * (start * (45 - step) + step) / 45, rel=1e-12)
    rate, last = np.float64(lr), epochs - 5
    for epoch in range(5, epochs):
        if epoch > 5:
            now, before = np.cos(np.pi * np.array([epoch - 5, epoch - 6]) / last)
            rate = (1 + now) / (1 + before) * (rate - final_lr) + final_lr
        of_this_epoch = rates[9 * epoch : 9 * epoch + 9]
        assert len(set(of_this_epoch)) == 1
        assert of_this_epoch[0] == pytest.approx(rate, rel=1e-9)
    assert rates[-1] > final_lr


def test_cosine_after_warmup():
    rates = rates_of(Schedule(type="cosine", warmup_epochs=1), 10, 5, 1.0)
    assert rates[:11] == pytest.approx([step / 10 for step in range(11)])
    assert rates[30] == pytest.approx(0.5)


def test_an_epoch_that_begins_warm_and_ends_cold():
    """Warm-up that ends within an epoch: the rest of it has the full rate."""
    schedule = Schedule(type="cosine", every="epoch", warmup_epochs=0.5)
    rates = rates_of(schedule, 4, 3, 1.0)
    second, third = (0.5 + 0.5 * math.cos(math.pi * part / 2.5) for part in (0.5, 1.5))
    assert rates == pytest.approx([0, 0.5, 1, 1] + [second] * 4 + [third] * 4)


@pytest.mark.parametrize("kind", ["multistep", "cosine"])
def test_constant_warmup(kind):
    schedule = Schedule(type=kind, warmup_epochs=0.6, warmup_start=0.1, warmup_shape="constant")
    rates = rates_of(schedule, 5, 2, 2.0)
    assert rates[:3] == pytest.approx([0.2] * 3)
    assert rates[3] == pytest.approx(2.0)


def test_linear_warmup_starts_where_it_is_told_to():
    rates = rates_of(Schedule(warmup_epochs=2, warmup_start=0.25), 4, 3, 0.8)
    assert rates == pytest.approx([0.2 + 0.075 * step for step in range(8)] + [0.8] * 4)
