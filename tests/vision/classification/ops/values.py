"""What the tests of the operations share."""

import numpy as np
from megengine import Tensor
from megengine.autodiff import GradManager


def normal(*shape, seed=0, mean=0.0, deviation=1.0):
    return np.random.default_rng(seed).normal(mean, deviation, shape).astype(np.float32)


def distinct(*shape, seed=0):
    """Values no two of which are equal, both signs."""
    count = int(np.prod(shape))
    values = np.random.default_rng(seed).permutation(count) - count / 2 + 0.25
    return values.reshape(shape).astype(np.float32)


def differentiate(function, dy, inputs, parameters=()):
    """The output and the gradients of inputs and parameters for the output's gradient ``dy``."""
    tensors = [Tensor(value) for value in inputs]
    manager = GradManager().attach([*tensors, *parameters])
    with manager:
        y = function(*tensors)
        manager.backward(y, Tensor(dy))
    gradients = [each.grad.numpy() for each in (*tensors, *parameters)]
    for parameter in parameters:
        parameter.grad = None
    return y.numpy(), gradients


def error(found, expected):
    """The largest, relative to the largest of what is expected."""
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


class Counted:
    """Kernels that note the names of those that are called."""

    def __init__(self, kernels):
        self.kernels, self.threads, self.names = kernels, kernels.threads, []

    def __call__(self, name, *inputs, **params):
        self.names.append(name)
        return self.kernels(name, *inputs, **params)
