import math

import pytest

from official.vision.classification.engine.recipe import Schedule
from official.vision.classification.engine.schedule import learning_rate


def seed_rate(step, steps_per_epoch, lr):
    """MegEngine/Models' train.py, written down again from its description in the facts."""
    if step < 5 * steps_per_epoch:
        return lr * step / (5 * steps_per_epoch)
    passed = sum(step >= epoch * steps_per_epoch for epoch in (30, 60, 80))
    return lr * 10.0**-passed


def test_multistep_is_megengine_models():
    schedule = Schedule(milestones=(30, 60, 80), gamma=0.1, warmup_epochs=5)
    for step in range(90 * 7):
        found = learning_rate(step, 7, 90, 0.2, schedule)
        assert found == pytest.approx(seed_rate(step, 7, 0.2), rel=1e-12)


def test_cosine_starts_at_the_top_and_ends_at_zero():
    schedule = Schedule(type="cosine")
    rates = [learning_rate(step, 10, 4, 0.3, schedule) for step in range(41)]
    assert rates[0] == 0.3
    assert rates[20] == pytest.approx(0.15)
    assert rates[40] == pytest.approx(0, abs=1e-12)
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(0.3 * math.cos(math.pi * step / 80) ** 2)  # half-angle form


def test_cosine_after_warmup():
    schedule = Schedule(type="cosine", warmup_epochs=1)
    rates = [learning_rate(step, 10, 5, 1.0, schedule) for step in range(50)]
    assert rates[:11] == pytest.approx([step / 10 for step in range(11)])
    assert rates[30] == pytest.approx(0.5)


def test_a_milestone_within_an_epoch_takes_effect_at_the_nearest_step():
    schedule = Schedule(milestones=(1.5,))
    rates = [learning_rate(step, 4, 3, 1.0, schedule) for step in range(12)]
    assert rates == pytest.approx([1.0] * 6 + [0.1] * 6)
