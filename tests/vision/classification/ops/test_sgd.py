import numpy as np
import pytest
from megengine import Parameter, Tensor

from official.vision.classification.ops.sgd import NativeSGD

from .values import normal

SHAPES = [(3, 5, 3, 3), (1, 37, 1, 1), (7,), (130, 64, 1, 1), (1,)]


def parameters():
    return [Parameter(normal(*shape, seed=n)) for n, shape in enumerate(SHAPES)]


def step(weights, optimizer, number):
    for index, parameter in enumerate(weights):
        parameter.grad = Tensor(normal(*parameter.shape, seed=100 * number + index))
    optimizer.step()


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.03])
def test_steps_with_momentum(native, nesterov, decay):
    """Sutskever et al. (2013) as PyTorch writes it, in float64; the rate changes on the way."""
    weights = parameters()
    expected = [parameter.numpy().astype(np.float64) for parameter in weights]
    velocities = [np.zeros_like(each) for each in expected]
    groups = [{"params": weights, "weight_decay": decay}]
    optimizer = native.sgd(groups, lr=0.1, momentum=0.8, nesterov=nesterov)
    for number, rate in enumerate((0.1, 0.1, 0.05)):
        optimizer.param_groups[0]["lr"] = rate
        step(weights, optimizer, number)
        for index, (weight, velocity) in enumerate(zip(expected, velocities)):
            gradient = weights[index].grad.numpy() + decay * weight
            velocity[...] = 0.8 * velocity + gradient
            weight -= rate * (gradient + 0.8 * velocity if nesterov else velocity)
    for parameter, weight, velocity in zip(weights, expected, velocities):
        np.testing.assert_allclose(parameter.numpy(), weight, rtol=0, atol=2e-6)
        state = optimizer._state[parameter]["momentum_buffer"]
        np.testing.assert_allclose(state.numpy(), velocity, rtol=0, atol=2e-6)


def test_what_has_no_gradient_stays(native):
    weights = parameters()
    before = [parameter.numpy() for parameter in weights]
    optimizer = native.sgd([{"params": weights}], lr=0.1, momentum=0.9, nesterov=False)
    weights[1].grad = Tensor(np.ones(SHAPES[1], np.float32))
    optimizer.step()
    same = [np.array_equal(old, now.numpy()) for old, now in zip(before, weights)]
    assert same == [index != 1 for index in range(len(SHAPES))]


def test_without_momentum(native):
    weights = parameters()
    expected = [parameter.numpy() for parameter in weights]
    optimizer = native.sgd([{"params": weights}], lr=0.1, momentum=0.0, nesterov=False)
    assert type(optimizer) is NativeSGD
    step(weights, optimizer, 0)
    for index, parameter in enumerate(weights):
        gradient = normal(*parameter.shape, seed=index)
        np.testing.assert_allclose(parameter.numpy(), expected[index] - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize("shape", [*SHAPES, (5, 4097)])
@pytest.mark.parametrize("share", [0.3, 5e-4, 1.0])
def test_lerp(native, shape, share):
    start, end = normal(*shape, seed=0), normal(*shape, seed=1)
    found = native.lerp(Tensor(start), Tensor(end), Tensor(np.float32([share]))).numpy()
    expected = start + share * (end.astype(np.float64) - start)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found.shape == shape


def test_lerp_of_equals_is_the_same_to_the_bit(native):
    value = Tensor(normal(3, 41, seed=0))
    assert np.array_equal(native.lerp(value, value, Tensor(np.float32([0.1]))), value)


def test_lerp_of_other_shapes_is_refused(native):
    with pytest.raises(ValueError, match="tensors of one shape"):
        native.lerp(Tensor(np.zeros(3)), Tensor(np.zeros(4)), Tensor(np.zeros(1))).numpy()
