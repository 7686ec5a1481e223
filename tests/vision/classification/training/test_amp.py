import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest
from megengine import Parameter, Tensor
from megengine.autodiff import GradManager

from official.vision.classification.engine.schema import Amp, Loss, Optimizer
from official.vision.classification.errors import TrainingError
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.training.amp import LossScaler, build_loss_scaler
from official.vision.classification.training.losses import loss_of
from official.vision.classification.training.optimizers import build_optimizer, set_learning_rate

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 3, 8, 8)).astype(np.float32)
LABELS = RNG.integers(0, 3, 8).astype(np.int32)


def network(norm=M.BatchNorm2d):
    mge.random.seed(0)
    return CifarResNet(1, num_classes=3, norm=norm)


def gradients_of(model, scaler, batch=8, unscale=True):
    """The gradients by name, from ``batch`` images at a time."""
    loss = loss_of(Loss(label_smoothing=0.1))
    manager = GradManager().attach(model.parameters())
    for start in range(0, 8, batch):
        images, labels = IMAGES[start : start + batch], LABELS[start : start + batch]
        with scaler.autocast(), manager:
            value = loss(model(Tensor(images)), Tensor(labels))
            scaler.backward(manager, value, accumulate=8 // batch)
    if unscale:
        assert scaler.unscale(model.parameters())
    return {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


def distance(found, expected):
    """Relative, over all gradients together."""
    difference = sum(((found[name] - expected[name]) ** 2).sum() for name in expected)
    return np.sqrt(difference / sum((value**2).sum() for value in expected.values()))


def test_float32_is_a_plain_backward_pass_bit_for_bit():
    model = network()
    found = gradients_of(model, LossScaler())
    plain = network()
    manager = GradManager().attach(plain.parameters())
    with manager:
        logits = plain(Tensor(IMAGES))
        manager.backward(F.nn.cross_entropy(logits, Tensor(LABELS), label_smooth=0.1))
    for name, parameter in plain.named_parameters():
        assert np.array_equal(found[name], parameter.grad.numpy())


@pytest.mark.parametrize("batch", [4, 2, 1])
def test_accumulated_gradients_are_those_of_one_large_batch(batch):
    found = gradients_of(network(lambda channels: M.Identity()), LossScaler(), batch)
    expected = gradients_of(network(lambda channels: M.Identity()), LossScaler())
    assert distance(found, expected) < 1e-6


def test_batch_norm_sees_the_small_batches_when_gradients_are_accumulated():
    """Its running mean is what two steps of their own would have left, and gradients differ."""
    accumulated, whole = network(), network()
    found = gradients_of(accumulated, LossScaler(), batch=4)
    assert distance(found, gradients_of(whole, LossScaler())) > 1e-2
    means = [
        network().conv1(Tensor(IMAGES[start : start + 4])).numpy().mean((0, 2, 3))
        for start in (0, 4)
    ]
    expected = 0.9 * (0.1 * means[0]) + 0.1 * means[1]
    np.testing.assert_allclose(accumulated.bn1.running_mean.numpy().ravel(), expected, atol=1e-6)


def test_autocast_computes_in_half_precision_and_the_loss_in_float32():
    scaler = LossScaler("dynamic")
    model = network()
    with scaler.autocast():
        logits = model(Tensor(IMAGES))
        loss = loss_of(Loss())(logits, Tensor(LABELS))
    assert logits.dtype == np.float16
    assert loss.dtype == np.float32
    assert network()(Tensor(IMAGES)).dtype == np.float32  # outside it is over


@pytest.mark.parametrize("batch", [8, 4])
def test_half_precision_gradients_are_near_those_of_float32(batch):
    expected = gradients_of(network(), LossScaler(), batch)
    found = gradients_of(network(), LossScaler(2.0**10), batch)
    assert all(value.dtype == np.float32 for value in found.values())
    assert 1e-5 < distance(found, expected) < 3e-2


def test_the_scale_saves_gradients_that_float16_cannot_hold():
    """1e-8 is below float16's smallest number, 6e-8; a backward pass in it loses the gradient."""

    def gradient(scaler):
        weight = Parameter(np.ones((4, 4), np.float32))
        manager = GradManager().attach([weight])
        with scaler.autocast(), manager:
            out = F.matmul(Tensor(np.ones((2, 4), np.float32)), weight)
            scaler.backward(manager, out.astype("float32").sum() * 1e-8)
        assert scaler.unscale([weight])
        return weight.grad.numpy()

    assert gradient(LossScaler(2.0**16)) == pytest.approx(np.full((4, 4), 2e-8), rel=1e-2)
    assert np.array_equal(gradient(LossScaler(1.0)), np.zeros((4, 4)))


def step(scaler, value):
    """One step whose gradient is ``value``."""
    weight = Parameter(np.zeros(2, np.float32))
    manager = GradManager().attach([weight])
    with manager:
        scaler.backward(manager, (weight * Tensor([1.0, value])).sum())
    return scaler.unscale([weight, Parameter([1.0])]), weight.grad


def test_an_overflow_skips_the_update_and_halves_a_dynamic_scale():
    dynamic, fixed = LossScaler("dynamic"), LossScaler(512.0)
    assert (dynamic.scale, fixed.scale) == (2.0**16, 512.0)
    for scaler, scale in ((dynamic, 2.0**15), (fixed, 512.0)):
        for bad in (np.inf, np.nan):
            done, gradient = step(scaler, bad)
            assert not done
            assert gradient is None
            if bad is np.inf:
                assert scaler.scale == scale
        done, gradient = step(scaler, 3.0)
        assert done
        assert np.array_equal(gradient.numpy(), [1, 3])


@pytest.mark.parametrize("kind", ["sgd", "lamb", "adamw"])
def test_a_skipped_update_changes_nothing(kind):
    model = network()
    section = Optimizer(type=kind, lr=0.1, weight_decay=0.1)
    optimizer = build_optimizer(model, section)
    set_learning_rate(optimizer, 0.1)
    scaler = LossScaler("dynamic")
    gradients_of(model, scaler)
    optimizer.step().clear_grad()
    states = [state for each in optimizer._state.values() for state in each.values()]
    watched = [*model.parameters(), *states]
    before = [value.numpy() for value in watched]
    gradients_of(model, scaler, unscale=False)
    model.fc.bias.grad *= np.inf
    assert not scaler.unscale(model.parameters())
    optimizer.step().clear_grad()
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, watched))


def test_a_dynamic_scale_grows_after_2000_clean_updates_in_a_row():
    scaler = LossScaler("dynamic")
    scaler.load({**scaler.state(), "_growth_tracker": 1998})
    step(scaler, 1.0)
    assert scaler.scale == 2.0**16
    step(scaler, 1.0)
    assert scaler.scale == 2.0**17
    step(scaler, 1.0)
    step(scaler, np.inf)
    assert scaler.state()["_growth_tracker"] == 0


def test_a_resumed_run_has_the_same_scale_and_grows_at_the_same_time():
    first = LossScaler("dynamic")
    step(first, np.inf)
    step(first, 1.0)
    state = first.state()
    assert all(type(value) in (int, float) for value in state.values())  # goes into JSON
    second = LossScaler("dynamic")
    second.load(state)
    assert second.state() == state
    assert second.scale == 2.0**15


def test_float32_has_no_state():
    scaler = LossScaler()
    assert scaler.state() == {}
    scaler.load({"scale_factor": 8.0})
    assert scaler.scale == 1.0


@pytest.mark.parametrize("scale", ["dynamic", 64.0])
def test_overflow_without_end_stops_the_run(scale):
    scaler = LossScaler(scale)
    for _ in range(29):
        step(scaler, np.nan)
    step(scaler, 1.0)
    for _ in range(29):
        assert not step(scaler, np.nan)[0]
    with pytest.raises(TrainingError, match="amp: the gradients of 30 steps .*amp.enabled"):
        step(scaler, np.nan)


def test_on_the_cpu_it_falls_back_and_says_so_in_one_line():
    cpu, gpu = (build_loss_scaler(Amp(loss_scale=8.0), device) for device in ("cpu", "gpu"))
    assert "CPU computes in float32" in cpu.note
    assert "\n" not in cpu.note
    assert gpu.note is None
    assert (cpu.scale, gpu.scale) == (1.0, 8.0)
    with cpu.autocast():
        assert network()(Tensor(IMAGES)).dtype == np.float32
    assert build_loss_scaler(Amp(enabled=False), "gpu").scale == 1.0
    assert build_loss_scaler(Amp(enabled=False), "cpu").note is None
