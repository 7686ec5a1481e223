import megengine as mge
import megengine.functional as F
import megengine.module as M
import megengine.random as R
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.optimizer import SGD

from official.vision.classification.resnet import blocks, cifar, model, preact
from tests.vision.classification.resnet.reference import halving_mean

# One network of each family, as small as it gets.
FAMILIES = {
    "v1": lambda **kwargs: model.ResNet(model.BasicBlock, (1, 1, 1, 1), 3, **kwargs),
    "v1d": lambda **kwargs: model.ResNet(
        model.Bottleneck, (1, 1, 1, 1), 3, stem="deep", avg_down=True, **kwargs
    ),
    "v2": lambda **kwargs: preact.PreActResNet((1, 1, 1, 1), 3, **kwargs),
    "v2-paper": lambda **kwargs: preact.PreActResNet((1, 1, 1, 1), 3, paper_form=True, **kwargs),
    "cifar": lambda **kwargs: model.ResNet(model.BasicBlock, (1, 1, 1, 1), 3, stem="3x3", **kwargs),
    "cifar-he": lambda **kwargs: cifar.CifarResNet(1, 3, **kwargs),
}
# A block with an identity shortcut of each kind.
IDENTITY_BLOCKS = {
    "basic": lambda **kwargs: blocks.BasicBlock(16, 16, **kwargs),
    "bottleneck": lambda **kwargs: blocks.Bottleneck(16, 4, **kwargs),
    "v2": lambda **kwargs: preact.PreActBottleneck(16, 4, **kwargs),
    "cifar-he": lambda **kwargs: cifar.CifarBlock(16, 16, **kwargs),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def rates(network):
    found = {
        path: module.rate
        for path, module in network.named_modules()
        if isinstance(module, blocks.DropPath)
    }
    return [found[path] for path in sorted(found, key=by_number)]


def by_number(path):
    return [int(part) if part.isdigit() else part for part in path.split(".")]


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (model.resnet18, 8),
        (model.resnetv1d50, 16),
        (preact.resnetv2_50, 16),
        (cifar.resnet18_cifar, 8),
        (cifar.resnet32_cifar, 15),
    ],
)
def test_drop_path_rates_rise_linearly_from_zero_over_all_blocks(network, count):
    assert rates(network()) == [0] * count
    found = rates(network(drop_path=0.3))
    assert np.allclose(found, np.linspace(0, 0.3, count))
    assert found[0] == 0
    assert blocks.drop_path_rates(0.5, 1) == [0]


def test_drop_path_drops_whole_images_at_its_rate_and_keeps_the_expectation():
    mge.random.seed(1)
    count, rate = 5000, 0.3
    out = blocks.DropPath(rate)(F.ones((count, 2, 3, 1))).numpy()
    each = out[:, :1, :1, :1]
    assert np.array_equal(out, np.broadcast_to(each, out.shape))
    dropped = each == 0
    assert np.allclose(each[~dropped], 1 / (1 - rate))
    error = 4 * np.sqrt(rate * (1 - rate) / count)  # four standard deviations
    assert abs(dropped.mean() - rate) < error
    assert abs(out.mean() - 1) < error / (1 - rate)


def test_drop_path_follows_the_frameworks_seed_and_differs_from_call_to_call():
    layer, x = blocks.DropPath(0.5), F.ones((64, 1))
    mge.random.seed(3)
    first, second = layer(x).numpy(), layer(x).numpy()
    mge.random.seed(3)
    again = layer(x).numpy()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


def test_drop_path_is_nothing_in_evaluation_or_at_rate_zero():
    x = F.ones((4, 1))
    layer = blocks.DropPath(0.5)
    layer.eval()
    assert layer(x) is x
    assert blocks.DropPath(0.0)(x) is x


def test_without_drop_path_a_network_draws_nothing():
    x = mge.Tensor(normal(2, 3, 16, 16))
    for build in FAMILIES.values():
        network = build()
        mge.random.seed(5)
        network(x)
        after = R.uniform(size=(3,)).numpy()
        mge.random.seed(5)
        assert np.array_equal(after, R.uniform(size=(3,)).numpy())


@pytest.mark.parametrize("name", IDENTITY_BLOCKS)
def test_a_dropped_branch_leaves_the_shortcut_and_a_kept_one_counts_more(name):
    """On inputs so positive that no ReLU after the sum matters."""
    x = mge.Tensor(normal(64, 16, 5, 5) + 30)
    mge.random.seed(2)
    block = IDENTITY_BLOCKS[name](drop_path=0.25)
    mge.random.seed(7)
    out = block(x).numpy() - x.numpy()
    block.drop_path.rate = 0.0
    branch = block(x).numpy() - x.numpy()
    dropped = np.array([not image.any() for image in out])
    assert 4 < dropped.sum() < 32
    assert np.allclose(out[~dropped], branch[~dropped] / 0.75, atol=1e-4)
    assert np.abs(branch[dropped]).max() > 0.1


def test_the_gradient_passes_where_the_branch_was_kept():
    mge.random.seed(1)
    layer, x = blocks.DropPath(0.5), mge.Tensor(normal(32, 3) + 5)
    with GradManager().attach([x]) as manager:
        out = layer(x)
        manager.backward(out.sum())
    kept = out.numpy() != 0
    assert 0 < kept.mean() < 1
    assert np.array_equal(x.grad.numpy(), np.where(kept, np.float32(2), 0))


def test_drop_path_keeps_half_precision():
    x = F.ones((8, 1)).astype("float16")
    assert blocks.DropPath(0.5)(x).dtype == np.float16


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_drop_path_must_be_a_probability_below_one(family, rate):
    with pytest.raises(ValueError, match=f"at least 0 and less than 1, got {rate}"):
        FAMILIES[family](drop_path=rate)


@pytest.mark.parametrize("size", [(6, 8), (7, 7), (6, 5), (5, 6), (1, 1), (2, 1)])
def test_halving_avg_pool_is_the_mean_of_what_there_is(size):
    x = mge.Tensor(normal(2, 3, *size))
    with GradManager().attach([x]) as manager:
        out = blocks.HalvingAvgPool()(x)
        weight = normal(*out.shape, seed=1)
        manager.backward((out * mge.Tensor(weight)).sum())
    assert np.allclose(out.numpy(), halving_mean(x.numpy().astype(np.float64)), atol=1e-6)
    gradient = np.zeros(x.shape)
    for i, j in np.ndindex(*out.shape[2:]):
        square = gradient[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        square += weight[:, :, i, j, None, None] / square[0, 0].size
    assert np.allclose(x.grad.numpy(), gradient, atol=1e-6)


def test_projection_is_the_identity_only_where_nothing_changes():
    def kinds(*args):
        made = blocks.projection(*args)
        layers = made if isinstance(made, M.Sequential) else [made]
        return [type(layer).__name__ for layer in layers]

    norm = M.BatchNorm2d
    assert kinds(64, 64, 1, norm) == kinds(64, 64, 1, norm, True) == ["Identity"]
    assert kinds(64, 128, 1, norm) == kinds(64, 64, 2, norm) == ["Conv2d", "BatchNorm2d"]
    assert kinds(64, 64, 2, None) == ["Conv2d"]
    assert kinds(64, 64, 2, norm, True) == ["HalvingAvgPool", "Conv2d", "BatchNorm2d"]
    assert kinds(64, 128, 1, norm, True) == ["Identity", "Conv2d", "BatchNorm2d"]
    assert blocks.projection(64, 64, 2, norm)[0].stride == (2, 2)
    assert blocks.projection(64, 64, 2, norm, True)[1].stride == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zero_init_residual", [False, True])
def test_a_few_steps_lower_the_loss(family, zero_init_residual):
    mge.random.seed(0)
    network = FAMILIES[family](zero_init_residual=zero_init_residual)
    size = 8 if family.startswith("cifar") else 16
    x, labels = mge.Tensor(normal(6, 3, size, size)), mge.Tensor(np.arange(6, dtype=np.int32) % 3)
    manager = GradManager().attach(list(network.parameters()))
    optimizer = SGD(list(network.parameters()), lr=0.01)
    last_layers = [m.last_layer.weight for m in network.modules() if hasattr(m, "last_layer")]
    assert all((weight.numpy() == 0).all() == zero_init_residual for weight in last_layers)
    losses = []
    for _ in range(3):
        with manager:
            losses.append(F.loss.cross_entropy(network(x), labels))
            manager.backward(losses[-1])
        assert all(p.grad is not None for p in network.parameters())
        optimizer.step().clear_grad()
    assert losses[-1].numpy() < losses[0].numpy() - 1e-3, losses
    assert all(weight.numpy().any() for weight in last_layers)
