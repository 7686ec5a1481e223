import numpy as np
import pytest

from official.vision.classification.data.sampler import (
    epoch_order,
    eval_batches,
    sample_generator,
    steps_per_epoch,
    train_batches,
)
from official.vision.classification.errors import DataError

COUNT = 1001
STEPS = 83  # of 12 images; 5 images are left over
SPLITS = [(1, 12), (2, 6), (3, 4), (4, 3)]  # ranks, images per rank


def run(ranks, batch_size, first=0, last=3 * STEPS, seed=7):
    """The batches of every rank, step by step."""
    each = [
        list(train_batches(COUNT, batch_size, seed, first, last, rank, ranks))
        for rank in range(ranks)
    ]
    assert {len(batches) for batches in each} == {last - first}
    return list(zip(*each))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("batch_size", [1, 100, 5000])
def test_evaluation_sees_each_image_once(ranks, batch_size):
    for count in (COUNT - 1, COUNT, COUNT + 1, ranks, ranks - 1):
        seen = []
        for rank in range(ranks):
            for epoch, indices, copies in eval_batches(count, batch_size, rank, ranks):
                assert copies.shape == indices.shape and not copies.any()
                assert epoch == 0 and 0 < len(indices) <= batch_size
                seen += indices.tolist()
        assert sorted(seen) == list(range(count))


def test_evaluation_is_shared_out_evenly():
    shares = [sum(len(b.indices) for b in eval_batches(COUNT, 10, rank, 3)) for rank in range(3)]
    assert shares == [334, 334, 333]


@pytest.mark.parametrize(("ranks", "batch_size"), SPLITS)
def test_the_same_images_in_each_step_however_they_are_shared(ranks, batch_size):
    steps = run(ranks, batch_size)
    for step, ((alone,), shares) in enumerate(zip(run(1, 12), steps)):
        assert alone.epoch == step // STEPS and len(alone.indices) == 12
        for share in shares:
            assert share.epoch == alone.epoch and share.indices.shape == (batch_size,)
        interleaved = np.stack([share.indices for share in shares], 1).reshape(-1)
        np.testing.assert_array_equal(interleaved, alone.indices)


@pytest.mark.parametrize(("ranks", "batch_size"), SPLITS[:3])
def test_resuming_at_any_step_gives_the_same_batches(ranks, batch_size):
    whole = run(ranks, batch_size)
    for first in range(0, 3 * STEPS, 5):
        resumed = run(ranks, batch_size, first, min(first + 7, 3 * STEPS))
        for expected, found in zip(whole[first:], resumed):
            for one, other in zip(expected, found):
                assert one.epoch == other.epoch
                np.testing.assert_array_equal(one.indices, other.indices)


def test_nothing_is_left_to_do_at_the_last_step():
    assert list(train_batches(COUNT, 12, 0, 3 * STEPS, 3 * STEPS, 0, 1)) == []


def test_an_epoch_has_no_image_twice_and_drops_other_images_each_time():
    steps = run(1, 12, last=10 * STEPS)
    dropped = []
    for epoch in range(10):
        images = np.concatenate([s[0].indices for s in steps[epoch * STEPS : (epoch + 1) * STEPS]])
        assert len(images) == len(set(images.tolist())) == 12 * STEPS
        assert images.min() >= 0 and images.max() < COUNT
        dropped.append(set(range(COUNT)) - set(images.tolist()))
    assert all(len(images) == 5 for images in dropped)
    assert len(set.union(*dropped)) > 30


def test_orders_are_permutations_and_differ():
    orders = [epoch_order(COUNT, seed, epoch) for seed in range(5) for epoch in range(5)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(COUNT))
    assert len({tuple(order) for order in orders}) == 25
    # No order resembles another, or the sorted one: 1 image in 1001 is in its place by chance.
    shared = [int((a == b).sum()) for i, a in enumerate(orders) for b in orders[:i]]
    assert max(shared) < 12
    assert max(int((order == np.arange(COUNT)).sum()) for order in orders) < 12
    np.testing.assert_array_equal(orders[7], epoch_order(COUNT, 1, 2))


def test_every_image_has_randomness_of_its_own():
    """Each (seed, epoch, index) another stream, in particular where numpy pads with zeros."""
    keys = [(s, e, i) for s in range(6) for e in range(6) for i in range(40)]
    first = [int(sample_generator(*key).integers(2**63)) for key in keys]
    assert len(set(first)) == len(keys)
    again = [int(sample_generator(*key).integers(2**63)) for key in keys]
    assert first == again


def test_an_order_and_the_images_of_its_epoch_share_no_numbers():
    for seed in range(4):
        for epoch in range(4):
            order = epoch_order(COUNT, seed, epoch).tolist()
            for index in range(4):
                for other in range(4):
                    generator = sample_generator(seed, other, index)
                    assert generator.permutation(COUNT).tolist() != order


def test_steps_per_epoch():
    assert steps_per_epoch(COUNT, 12, 1) == steps_per_epoch(COUNT, 4, 3) == STEPS
    assert steps_per_epoch(24, 12, 2) == 1
    with pytest.raises(DataError) as caught:
        steps_per_epoch(23, 12, 2)
    for part in ("23", "12", "2 device", "--batch-size"):
        assert part in str(caught.value)
    with pytest.raises(DataError):
        next(train_batches(23, 12, 0, 0, 1, 0, 2))


# Repeated augmentation


def repeated(ranks, batch_size, repeats, first=0, last=2 * STEPS, seed=7):
    """Per step, (index, copy) of its images on every rank."""
    each = [
        [
            list(zip(batch.indices.tolist(), batch.copies.tolist()))
            for batch in train_batches(COUNT, batch_size, seed, first, last, rank, ranks, repeats)
        ]
        for rank in range(ranks)
    ]
    return list(zip(*each))


def test_without_repeats_the_order_is_that_of_the_epoch():
    """Runs go on as they began: this generator's permutation, cut into batches."""
    for epoch in range(2):
        order = np.random.default_rng((7, 0, epoch)).permutation(COUNT)
        np.testing.assert_array_equal(epoch_order(COUNT, 7, epoch), order)
        for position in (0, 1, STEPS - 1):
            step = epoch * STEPS + position
            for rank in range(3):
                (batch,) = train_batches(COUNT, 4, 7, step, step + 1, rank, 3)
                expected = order[12 * position : 12 * position + 12][rank::3]
                np.testing.assert_array_equal(batch.indices, expected)
                assert batch.copies.shape == (4,) and not batch.copies.any()


@pytest.mark.parametrize("repeats", [2, 3, 5])
def test_each_image_comes_in_a_row(repeats):
    """The epoch's order with every image repeated, until the epoch's steps are full."""
    steps = repeated(1, 12, repeats)
    for epoch in range(2):
        order = epoch_order(COUNT, 7, epoch)
        expected = [(int(index), copy) for index in order for copy in range(repeats)]
        found = [pair for (step,) in steps[epoch * STEPS : (epoch + 1) * STEPS] for pair in step]
        assert found == expected[: 12 * STEPS]
        assert len({index for index, _ in found}) == -(-12 * STEPS // repeats)


@pytest.mark.parametrize(("ranks", "batch_size"), SPLITS)
def test_repeats_are_shared_out_like_other_images(ranks, batch_size):
    for (alone,), shares in zip(repeated(1, 12, 3), repeated(ranks, batch_size, 3)):
        assert [pair for pairs in zip(*shares) for pair in pairs] == alone
    if ranks == 3:
        for shares in repeated(3, 4, 3):
            assert [{copy for _, copy in share} for share in shares] == [{0}, {1}, {2}]


def test_resuming_with_repeats():
    whole = repeated(2, 6, 3)
    for first in range(0, 2 * STEPS, 7):
        assert repeated(2, 6, 3, first) == whole[first:]


def test_epochs_with_repeats_see_other_images():
    steps = repeated(1, 12, 3, last=6 * STEPS)
    seen = [
        {index for (step,) in steps[epoch * STEPS : (epoch + 1) * STEPS] for index, _ in step}
        for epoch in range(6)
    ]
    assert all(len(images) == 332 for images in seen)
    assert 1 - len(set.union(*seen)) / COUNT == pytest.approx((1 - 332 / COUNT) ** 6, abs=0.04)


def test_each_repetition_has_randomness_of_its_own():
    keys = [(s, e, i, c) for s in range(4) for e in range(4) for i in range(20) for c in range(4)]
    first = [int(sample_generator(*key).integers(2**63)) for key in keys]
    assert len(set(first)) == len(keys)
    for seed, epoch, index in [(0, 0, 0), (7, 2, 5), (2**40, 89, 1281166)]:
        expected = np.random.default_rng((seed, 1, epoch, index)).random(4)
        for generator in (
            sample_generator(seed, epoch, index),
            sample_generator(seed, epoch, index, 0),
        ):
            np.testing.assert_array_equal(generator.random(4), expected)
