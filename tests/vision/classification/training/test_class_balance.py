"""Classes of different sizes: weights in the loss, balanced sampling."""

import megengine.functional as F
import numpy as np
import pytest
from megengine import Tensor
from megengine.autodiff import GradManager

from official.vision.classification.data.sampler import (
    balanced_order,
    steps_per_epoch,
    train_batches,
)
from official.vision.classification.engine.recipe import load_recipe, override
from official.vision.classification.engine.schema import Loss
from official.vision.classification.errors import UsageError
from official.vision.classification.training.losses import loss_of

LABELS = np.repeat([0, 1, 2], [70, 20, 9])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", ["softmax", "bce"])
def test_weighted_losses_in_float64(kind, mixed, smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 6).astype(np.int32)
    weights = np.array([0.5, 1.5, 3.0], np.float32)
    shares = np.eye(3)[labels]
    if mixed:
        shares = 0.7 * shares + 0.3 * shares[::-1]
    smooth = shares * (1 - smoothing) + smoothing / 3
    wide = logits.astype(np.float64)
    if kind == "softmax":  # PyTorch's: each class's term has its weight
        logarithms = wide - np.log(np.exp(wide).sum(1, keepdims=True))
        expected = -(weights * smooth * logarithms).sum(1).mean()
    else:
        losses = np.log1p(np.exp(-wide)) * smooth + np.log1p(np.exp(wide)) * (1 - smooth)
        expected = (losses.sum(1) * (shares * weights).sum(1)).mean()
    targets = Tensor(shares.astype(np.float32)) if mixed else Tensor(labels)
    criterion = loss_of(Loss(type=kind, label_smoothing=smoothing), weights)
    assert criterion(Tensor(logits), targets).item() == pytest.approx(expected, rel=1e-5)


def test_weights_of_one_change_nothing():
    rng = np.random.default_rng(1)
    logits, labels = Tensor(rng.normal(size=(5, 3)).astype(np.float32)), Tensor([0, 1, 2, 1, 0])
    section = Loss(label_smoothing=0.1)
    plain, weighted = loss_of(section), loss_of(section, np.ones(3, np.float32))
    assert plain(logits, labels).item() == pytest.approx(weighted(logits, labels).item(), rel=1e-6)


def test_the_gradient_of_a_weighted_loss():
    logits, weights = Tensor(np.zeros((2, 2), np.float32)), np.array([1.0, 4.0], np.float32)
    with GradManager().attach([logits]) as gradients:
        gradients.backward(loss_of(Loss(), weights)(logits, Tensor(np.array([0, 1], np.int32))))
    assert logits.grad.numpy() == pytest.approx(np.array([[-0.25, 0.25], [1.0, -1.0]]))
    assert F.softmax(logits).numpy() == pytest.approx(np.full((2, 2), 0.5))


def test_a_balanced_epoch_has_as_many_of_each_class():
    favoured = set()
    for epoch in range(20):
        order = balanced_order(LABELS[:-1], 3, epoch)
        counts = np.bincount(LABELS[order])
        assert len(order) == 98 and sorted(counts.tolist()) == [32, 33, 33]
        favoured.add(int(counts.argmin()))
        times = np.bincount(order, minlength=98)
        for label in range(3):  # a class comes in whole rounds
            own = times[LABELS[:-1] == label]
            assert own.max() - own.min() <= 1
    assert favoured == {0, 1, 2}
    assert np.array_equal(balanced_order(LABELS, 3, 5), balanced_order(LABELS, 3, 5))
    assert not np.array_equal(balanced_order(LABELS, 3, 5), balanced_order(LABELS, 4, 5))


@pytest.mark.parametrize("repeats", [1, 2])
def test_balanced_batches_for_any_number_of_ranks_and_after_any_step(repeats):
    def batches(batch, rank, ranks, first=0):
        arguments = (99, batch, 7, first, 3 * steps_per_epoch(99, 12, 1), rank, ranks)
        return [*train_batches(*arguments, repeats, LABELS)]

    whole = batches(12, 0, 1)
    assert [*map(str, batches(12, 0, 1, 10))] == [*map(str, whole[10:])]
    parts = [batches(4, rank, 3) for rank in range(3)]
    for step, batch in enumerate(whole):
        joined = np.stack([part[step].indices for part in parts], 1).reshape(-1)
        assert np.array_equal(joined, batch.indices)
        copies = np.stack([part[step].copies for part in parts], 1).reshape(-1)
        assert np.array_equal(copies, batch.copies)
    for epoch in range(3):  # no image comes twice as the same copy
        seen = [(i, c) for b in whole if b.epoch == epoch for i, c in zip(b.indices, b.copies)]
        assert len(seen) == len(set(seen)) == 96


def test_both_at_once_are_refused():
    recipe = load_recipe("shapes")
    keys = {"loss.class_weights": "balanced", "sampling": "balanced"}
    for key, value in keys.items():
        override(recipe, {key: value})
    with pytest.raises(UsageError, match="do the same twice"):
        override(recipe, keys)
