import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.augmentation.mixing import (
    Mix,
    apply_mix,
    draw_mix,
    mix_targets,
)
from official.vision.classification.data.sampler import epoch_order, mix_generator, sample_generator


def mixes(count, size=8, height=64, width=48, **alphas):
    return [draw_mix(3, step, 0, size, height, width, **alphas) for step in range(count)]


def batch(size=6, height=9, width=7, classes=5):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(size, 3, height, width)).astype(np.float32)
    targets = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, size)]
    return images, targets


def same(one, other):
    np.testing.assert_array_equal(one.permutation, other.permutation)
    return one[:2] == other[:2] and one.box == other.box


# What is drawn


def test_a_mix_is_a_function_of_its_arguments():
    keys = [(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)]
    drawn = [draw_mix(*key, 64, 32, 32, 0.2, 1.0) for key in keys]
    np.random.seed(0)
    assert all(same(draw_mix(*key, 64, 32, 32, 0.2, 1.0), mix) for key, mix in zip(keys, drawn))
    assert len({tuple(mix.permutation) for mix in drawn}) == 27


def test_a_mix_from_its_generators_numbers():
    """Runs go on as they began: these numbers, in this order, from this generator."""
    for step in range(60):
        mix = draw_mix(3, step, 2, 8, 64, 48, 0.2, 1.0)
        rng = np.random.default_rng((3, 2, step, 2))
        kind, alpha = [("mixup", 0.2), ("cutmix", 1.0)][rng.integers(2)]
        lam = rng.beta(alpha, alpha)
        assert mix.kind == kind and mix.permutation.tolist() == rng.permutation(8).tolist()
        if kind == "mixup":
            assert mix.lam == lam and mix.box == (0, 0, 0, 0)
            continue
        edge = np.sqrt(1 - lam)  # Yun et al., equation 2
        for low, high, length in (mix.box[:2] + (64,), mix.box[2:] + (48,)):
            first = rng.integers(length) - int(edge * length) // 2
            assert (low, high) == (max(first, 0), min(first + int(edge * length), length))


def test_the_randomness_of_a_batch_is_nobody_elses():
    for seed in range(3):
        for step in range(3):
            for rank in range(3):
                order = mix_generator(seed, step, rank).permutation(100).tolist()
                assert order != epoch_order(100, seed, step).tolist()
                for index in range(3):
                    other = sample_generator(seed, step, index).permutation(100)
                    assert order != other.tolist()


def test_no_mixing():
    for mix in mixes(20):
        assert mix.kind == "none" and mix.lam == 1
        assert mix.permutation.tolist() == list(range(8))
    images, targets = batch(8)
    np.testing.assert_array_equal(apply_mix(mge.Tensor(images), mix).numpy(), images)
    np.testing.assert_array_equal(mix_targets(mge.Tensor(targets), mix).numpy(), targets)


def test_one_of_two_at_equal_odds():
    assert {mix.kind for mix in mixes(100, mixup=0.2)} == {"mixup"}
    assert {mix.kind for mix in mixes(100, cutmix=1.0)} == {"cutmix"}
    kinds = [mix.kind for mix in mixes(2000, mixup=0.2, cutmix=1.0)]
    assert set(kinds) == {"mixup", "cutmix"}
    assert abs(kinds.count("mixup") - 1000) < 90
    assert [draw_mix(3, 0, rank, 8, 9, 9, 0.2, 1.0).kind for rank in range(40)].count("mixup") > 8


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 5.0])
def test_shares_of_mixup_follow_beta(alpha):
    """By its moments: mean 1/2, variance 1 / (4 (2 alpha + 1)), and the fourth."""
    lam = np.array([mix.lam for mix in mixes(6000, mixup=alpha)])
    assert lam.min() >= 0 and lam.max() <= 1
    assert abs(lam.mean() - 0.5) < 0.02
    assert abs(lam.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))
    assert abs(((lam - 0.5) ** 4).mean() - fourth) < 0.003


def test_each_uses_its_own_alpha():
    drawn = mixes(4000, mixup=0.1, cutmix=50.0, height=1000, width=1000)
    mixup = np.array([mix.lam for mix in drawn if mix.kind == "mixup"])
    assert abs(mixup.var() - 1 / 4.8) < 0.012
    boxes = [mix.box for mix in drawn if mix.kind == "cutmix"]
    widest = max(right - left for _, _, left, right in boxes)
    assert 750 < widest < 850  # a Beta(50, 50) share of 0.5 +- 0.05 each way: 707 on average


def test_permutations():
    drawn = np.array([mix.permutation for mix in mixes(3000, mixup=0.2)])
    assert drawn.dtype == np.int32
    assert (np.sort(drawn, 1) == np.arange(8)).all()
    for image in range(8):
        counts = np.bincount(drawn[:, image], minlength=8)
        assert ((counts - 375) ** 2 / 375).sum() < 30  # chi-square with 7 degrees of freedom


def test_shares_of_cutmix_are_those_of_its_pixels():
    for mix in mixes(500, cutmix=1.0):
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 64 and 0 <= left <= right <= 48
        covered = np.zeros((64, 48))
        covered[top:bottom, left:right] = 1
        assert mix.lam == pytest.approx(1 - covered.mean(), abs=1e-12)


def test_boxes_have_the_images_proportions_unless_cut_off():
    found = 0
    for mix in mixes(1000, cutmix=1.0, height=600, width=300):
        top, bottom, left, right = mix.box
        if top > 0 and bottom < 600 and left > 0 and right < 300:
            assert abs((bottom - top) - 2 * (right - left)) <= 2
            found += 1
    assert found > 100


def test_how_often_a_pixel_is_covered():
    """With a uniform share a box's edges average to: the centre in 1 of 2, a corner in 1 of 8.

    Along one axis a box of relative length s covers the middle with probability s, and the edge
    with s / 2; and the mean of s * s is that of 1 - lambda.
    """
    count, height, width = 6000, 200, 100
    drawn = mixes(count, cutmix=1.0, height=height, width=width)
    covered = np.zeros((height, width))
    for top, bottom, left, right in (mix.box for mix in drawn):
        covered[top:bottom, left:right] += 1
    covered /= count
    assert abs(covered[height // 2, width // 2] - 1 / 2) < 0.03
    for row, column in [(0, 0), (0, -1), (-1, 0), (-1, -1)]:
        assert abs(covered[row, column] - 1 / 8) < 0.025
    for row, column in [(0, width // 2), (-1, width // 2), (height // 2, 0), (height // 2, -1)]:
        assert abs(covered[row, column] - 1 / 4) < 0.03


def test_alphas_next_to_zero():
    for mix in mixes(200, mixup=1e-3, cutmix=1e-3):
        assert 0 <= mix.lam <= 1


# What is done with it


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.77])
def test_mixup(lam):
    images, targets = batch()
    mix = Mix("mixup", lam, np.array([3, 1, 5, 0, 2, 4], np.int32), (0, 0, 0, 0))
    found = apply_mix(mge.Tensor(images), mix)
    assert found.dtype == np.float32
    for row, other in enumerate(mix.permutation):
        expected = lam * images[row].astype(float) + (1 - lam) * images[other]
        np.testing.assert_allclose(found.numpy()[row], expected, atol=1e-6)
        expected = lam * targets[row] + (1 - lam) * targets[other]
        np.testing.assert_allclose(
            mix_targets(mge.Tensor(targets), mix).numpy()[row], expected, atol=1e-7
        )


@pytest.mark.parametrize(
    "box", [(2, 6, 1, 4), (0, 9, 0, 7), (8, 9, 6, 7), (0, 9, 3, 4), (4, 4, 2, 5), (3, 5, 6, 6)]
)
def test_cutmix(box):
    images, targets = batch()
    top, bottom, left, right = box
    lam = 1 - (bottom - top) * (right - left) / 63
    mix = Mix("cutmix", lam, np.array([3, 1, 5, 0, 2, 4], np.int32), box)
    given = mge.Tensor(images)
    found = apply_mix(given, mix).numpy()
    for image, row, column in np.ndindex(6, 9, 7):
        inside = top <= row < bottom and left <= column < right
        source = mix.permutation[image] if inside else image
        assert (found[image, :, row, column] == images[source, :, row, column]).all()
    np.testing.assert_array_equal(given.numpy(), images)
    expected = lam * targets + (1 - lam) * targets[mix.permutation]
    np.testing.assert_allclose(mix_targets(mge.Tensor(targets), mix).numpy(), expected, atol=1e-7)


@pytest.mark.parametrize("alphas", [{"mixup": 0.2}, {"cutmix": 1.0}])
def test_targets_say_how_much_of_each_class_is_in_an_image(alphas):
    """Images that are white in the channel of their class: the mean of a channel is its share."""
    labels = np.array([0, 1, 2, 0, 1, 2, 1, 0])
    targets = np.eye(3, dtype=np.float32)[labels]
    images = np.broadcast_to(targets[:, :, None, None], (8, 3, 32, 24)).astype(np.float32)
    for mix in mixes(30, height=32, width=24, **alphas):
        found = apply_mix(mge.Tensor(images), mix).numpy().mean((2, 3))
        shares = mix_targets(mge.Tensor(targets), mix).numpy()
        np.testing.assert_allclose(shares, found, atol=2e-6)
        np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)


def test_a_batch_of_one_is_mixed_with_itself():
    images, targets = batch(1)
    for step in range(20):
        mix = draw_mix(0, step, 0, 1, 9, 7, 1.0, 1.0)
        np.testing.assert_allclose(apply_mix(mge.Tensor(images), mix).numpy(), images, atol=1e-6)
        np.testing.assert_allclose(mix_targets(mge.Tensor(targets), mix).numpy(), targets)
