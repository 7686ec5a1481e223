import megengine as mge
import numpy as np
import pytest
from megengine import Tensor
from megengine.autodiff import GradManager
from megengine.optimizer import SGD

from official.vision.classification.errors import WeightsError
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.training.ema import ExponentialAverage

IMAGES = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)


class Run:
    """A network in training, with the average of its weights."""

    def __init__(self, decay=0.9, warmup=True, seed=0):
        mge.random.seed(seed)
        self.model = CifarResNet(1, num_classes=2)
        self.optimizer = SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.gradients = GradManager().attach(self.model.parameters())
        self.average = ExponentialAverage(self.model, decay, warmup)

    def train(self, first, last):
        """Steps ``first`` to ``last``; what the weights were after each."""
        seen = []
        for step in range(first, last):
            self.model.train()
            x = np.random.default_rng(step).normal(size=(4, 3, 8, 8)).astype(np.float32)
            with self.gradients:
                self.gradients.backward((self.model(Tensor(x)) ** 2).mean())
            self.optimizer.step().clear_grad()
            self.average.update(step)
            seen.append(self.model.state_dict())
        return seen

    def judge(self):
        self.model.eval()
        return self.model(Tensor(IMAGES)).numpy()


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def weighted(states, decays):
    """The average as one weighted sum over all that was seen, in float64."""
    weights = [np.prod(decays)]
    for position, decay in enumerate(decays):
        weights.append((1 - decay) * np.prod(decays[position + 1 :]))
    assert sum(weights) == pytest.approx(1)
    return {
        name: sum(w * state[name].astype(np.float64) for w, state in zip(weights, states))
        for name in states[0]
    }


@pytest.mark.parametrize(
    ("warmup", "decays"),
    [(False, [0.5] * 6), (True, [1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15])],
)
def test_it_is_the_weighted_sum_of_all_weights_and_statistics(warmup, decays):
    run = Run(decay=0.5, warmup=warmup)
    states = [run.model.state_dict(), *run.train(0, 6)]
    expected = weighted(states, decays)
    found = run.average.state()
    assert found.keys() == expected.keys()
    assert "bn1.running_var" in found
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
        assert np.abs(found[name] - states[-1][name]).max() > 1e-4, name  # far from the last


def test_the_decay_rises_to_what_was_asked_for():
    average = Run(decay=0.9).average
    assert [average.decay_at(step) for step in (0, 8, 79, 80, 81, 10**6)] == pytest.approx(
        [0.1, 0.5, 80 / 89, 0.9, 0.9, 0.9]
    )
    assert Run(decay=0.9, warmup=False).average.decay_at(0) == 0.9


def test_before_the_first_update_it_is_the_network_itself():
    run = Run()
    assert equal(run.average.state(), run.model.state_dict())


def test_what_does_not_change_is_its_own_average_bit_for_bit():
    """As a frozen stage does: ``d x + (1 - d) x`` would drift from it by rounding."""
    run = Run(decay=0.9)
    for step in range(50):
        run.average.update(step)
    assert equal(run.average.state(), run.model.state_dict())


def test_inside_of_applied_the_network_has_the_averages():
    run = Run()
    run.train(0, 3)
    own, own_logits = run.model.state_dict(), run.judge()
    averages = run.average.state()
    with run.average.applied():
        assert equal(run.model.state_dict(), averages)
        logits = run.judge()
    other = Run(seed=1)
    other.model.load_state_dict(averages)
    assert np.array_equal(logits, other.judge())
    assert not np.array_equal(logits, own_logits)
    assert equal(run.model.state_dict(), own)
    assert np.array_equal(run.judge(), own_logits)


def test_judging_the_averages_does_not_disturb_training():
    straight, disturbed = Run(), Run()
    straight.train(0, 5)
    for step in range(5):
        disturbed.train(step, step + 1)
        with disturbed.average.applied():
            disturbed.judge()
    assert equal(disturbed.model.state_dict(), straight.model.state_dict())
    assert equal(disturbed.average.state(), straight.average.state())


def test_an_error_inside_of_applied_leaves_the_networks_own_weights():
    run = Run()
    run.train(0, 2)
    own, averages = run.model.state_dict(), run.average.state()
    with pytest.raises(ZeroDivisionError), run.average.applied():
        1 / 0  # noqa: B018
    assert equal(run.model.state_dict(), own)
    assert equal(run.average.state(), averages)


def test_a_saved_state_goes_on_bit_for_bit():
    straight = Run()
    straight.train(0, 5)
    run = Run()
    run.train(0, 3)
    saved = {name: value.copy() for name, value in run.average.state().items()}
    run.average = ExponentialAverage(run.model, 0.9)
    run.average.load(saved)
    assert equal(run.average.state(), saved)
    run.train(3, 5)
    assert equal(run.average.state(), straight.average.state())


def other_shape(state):
    state["fc.bias"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("bn1.bias"), r"bn1.bias has shape None, expected \(16,\)"),
        (lambda state: state.update(extra=np.zeros(2)), r"extra has shape \(2,\), expected None"),
        (other_shape, r"fc.bias has shape \(3,\), expected \(2,\)"),
    ],
)
def test_another_networks_state_is_refused_whole(spoil, message):
    run = Run()
    before = run.average.state()
    state = Run(seed=1).average.state()
    spoil(state)
    with pytest.raises(WeightsError, match=message):
        run.average.load(state)
    assert equal(run.average.state(), before)
