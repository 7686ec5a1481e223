"""What is refused, and what is not."""

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.errors import UserError
from official.vision.classification.export.check import BATCHES, TOLERANCE, check

from .networks import FAMILIES, network_of


@pytest.fixture(scope="module")
def network():
    return network_of(FAMILIES["cifar"], (16, 20), order="RGB", mean=(90, 1, 2), std=(3, 50, 60))


def altered(network, change):
    """A runtime that gives the network's logits, changed."""

    def run(images):
        return change(network.model(mge.Tensor(images)).numpy())

    return run


def largest_logit(network):
    """Over the same images as ``check`` takes."""
    seen = []
    check("x", network, altered(network, lambda logits: seen.append(logits) or logits))
    assert [len(logits) for logits in seen] == list(BATCHES)
    return np.abs(np.concatenate(seen)).max()


def test_batches_of_several_sizes_of_images_that_differ(network):
    seen = []

    def run(images):
        seen.append(images)
        return network.model(mge.Tensor(images)).numpy()

    assert check("x", network, run) < 1e-5
    assert [each.shape for each in seen] == [(n, 3, 16, 20) for n in BATCHES]
    assert len(set(BATCHES)) > 1
    every = np.concatenate(seen).reshape(sum(BATCHES), -1)
    assert len(np.unique(every.round(3), axis=0)) == len(every)
    means, stds = np.array([90, 1, 2]), np.array([3, 50, 60])
    pixels = np.concatenate(seen).transpose(0, 2, 3, 1) * stds + means
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-3)  # normalised as it is told
    assert pixels.min() > -0.5
    assert pixels.max() < 255.5


@pytest.mark.parametrize(("part", "passes"), [(0.8, True), (1.3, False), (-1.3, False)])
def test_the_tolerance_is_a_part_of_the_largest_logit(network, part, passes):
    step = part * TOLERANCE * largest_logit(network)

    def change(logits):
        logits = logits.copy()
        logits[-1, 0] += step
        return logits

    if passes:
        difference = check("x", network, altered(network, change))
        assert difference == pytest.approx(abs(part) * TOLERANCE, rel=0.05)
    else:
        with pytest.raises(UserError, match=r"^x: its logits differ .* 1.3e-04 of the largest"):
            check("x", network, altered(network, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits * np.nan, "differ from the network's by nan"),
        (lambda logits: logits[::-1], "differ"),  # another order within a batch
        (lambda logits: logits[:, ::-1], "differ"),
        (lambda logits: logits[:, :4], r"has \(6, 4\) logits, the network \(6, 5\)"),
        (lambda logits: np.zeros_like(logits), "by 1.0e\\+00"),
    ],
)
def test_what_is_wrong_is_refused(network, change, message):
    with pytest.raises(UserError, match=message):
        check("x", network, altered(network, change))


def test_a_network_that_gives_no_numbers_is_refused():
    broken = network_of(FAMILIES["cifar"])
    broken.model.fc.bias._reset(np.full(5, np.inf, np.float32))
    with pytest.raises(UserError, match="outputs are not finite"):
        check("x", broken, altered(broken, lambda logits: logits))


def test_a_network_that_gives_zeros_is_no_division_by_zero():
    silent = network_of(FAMILIES["cifar"])
    for parameter in (silent.model.fc.weight, silent.model.fc.bias):
        parameter._reset(np.zeros(parameter.shape, np.float32))
    assert check("x", silent, altered(silent, lambda logits: logits)) == 0
    with pytest.raises(UserError, match="differ"):
        check("x", silent, altered(silent, lambda logits: logits + 1e-6))
