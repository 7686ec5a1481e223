import pytest
from megengine import Tensor

from official.vision.classification.engine.meters import Meter, StepMeters
from official.vision.classification.errors import TrainingError


def test_a_meter_prints_as_the_seed_does():
    meter = Meter("Loss")
    meter.update(2.0)
    meter.update(5.0, count=3)
    assert str(meter) == "Loss 5.000 (4.250)"
    meter.reset()
    assert meter.mean == 0


def test_steps_are_averaged_since_the_last_reset():
    meters = StepMeters()
    assert not meters.fetch(0)
    meters.add(Tensor([3.0, 0.25, 0.5]), 1.0)
    meters.add(Tensor([1.0, 0.75, 1.0]), 2.0)
    assert meters.fetch(2)
    assert meters.means() == {"loss": 2, "top1": 50, "top5": 75, "seconds_per_step": 1.5}
    assert str(meters) == (
        "Loss 1.000 (2.000) Acc@1 75.000 (50.000) Acc@5 100.000 (75.000) Time 2.000 (1.500)"
    )
    meters.reset()
    assert not meters.fetch(2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_first_step_without_a_finite_loss_is_named(value):
    meters = StepMeters()
    for loss in (1.0, value, value):
        meters.add(Tensor([loss, 0.0, 0.0]), 1.0)
    with pytest.raises(TrainingError, match=f"the loss is {value} at step 98"):
        meters.fetch(100)
