"""One update of the weights against the same in float64, worked out by hand."""

import megengine as mge
import megengine.functional as F
import megengine.module as M
import numpy as np
import pytest

from official.vision.classification.data.augmentation.mixing import draw_mix
from official.vision.classification.data.loader import Batch
from official.vision.classification.engine.recipe import override, parse_recipe
from official.vision.classification.ops.plain import Layer, PlainOps
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.training import step as update
from official.vision.classification.training.step import TrainingStep

CLASSES, EDGE = 7, 6
RECIPE = parse_recipe(
    {
        "epochs": 1,
        "batch_size": 4,
        "optimizer": {"type": "sgd", "lr": 1.0, "momentum": 0.9},
        "preprocess": {"mean": [90, 100, 110], "std": [50, 60, 70], "resize": EDGE, "crop": EDGE},
    },
    "test",
)


def random_batch(step, count):
    rng = np.random.default_rng((7, step))
    images = rng.integers(0, 256, (count, 3, EDGE, EDGE), np.uint8)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    return Batch(images, labels, np.arange(count))


class Perceptron(Layer):
    """``(N, 3, EDGE, EDGE)`` -> 5 hidden units, ReLU -> ``(N, CLASSES)``."""

    def __init__(self):
        super().__init__()
        self.hidden = M.Linear(3 * EDGE * EDGE, 5)
        self.fc = M.Linear(5, CLASSES)
        M.init.normal_(self.fc.bias, std=0.1)  # no two classes alike where no hidden unit is active

    def forward(self, x):
        return self.fc(F.relu(self.hidden(F.flatten(x, 1))))


class ByHand:
    """The same network and its training, in float64."""

    def __init__(self, model, recipe, seed):
        self.recipe, self.seed = recipe, seed
        self.weights = {k: v.astype(np.float64) for k, v in model.state_dict().items()}
        self.velocity = {k: np.zeros_like(v) for k, v in self.weights.items()}
        self.average = {k: v.copy() for k, v in self.weights.items()}

    def update(self, batch, step, rate):
        """The mean loss, and the shares of images whose class is first, or among the first five."""
        recipe, section = self.recipe, self.recipe.optimizer
        parts = [
            self._loss_and_gradient(
                *(values[first :: recipe.accumulate] for values in (batch.images, batch.labels)),
                draw_for=(step, first),
            )
            for first in range(recipe.accumulate)
        ]
        gradient = {k: np.mean([part[1][k] for part in parts], axis=0) for k in self.weights}
        if section.clip_norm:
            norm = np.sqrt(sum((g**2).sum() for g in gradient.values()))
            gradient = {k: g * min(1, section.clip_norm / norm) for k, g in gradient.items()}
        for name, weight in self.weights.items():
            lr = rate * (recipe.head_lr if name.startswith("fc") else 1)
            decayed = gradient[name] + section.weight_decay * weight
            self.velocity[name] = section.momentum * self.velocity[name] + decayed
            self.weights[name] = weight - lr * self.velocity[name]
        if recipe.ema:
            share = 1 - min(recipe.ema.decay, (1 + step) / (10 + step))
            for name, mean in self.average.items():
                self.average[name] = mean + share * (self.weights[name] - mean)
        return np.mean([part[0] for part in parts], axis=0)

    def _loss_and_gradient(self, images, labels, draw_for):
        w, preprocess, loss = self.weights, self.recipe.preprocess, self.recipe.loss
        x = images.astype(np.float64).transpose(0, 2, 3, 1)
        x = ((x - preprocess.mean) / preprocess.std).transpose(0, 3, 1, 2)
        targets = np.eye(CLASSES)[labels]
        x, targets = self._mixed(x, targets, draw_for)
        x = x.reshape(len(x), -1)
        hidden = x @ w["hidden.weight"].T + w["hidden.bias"]
        active = np.maximum(hidden, 0)
        logits = active @ w["fc.weight"].T + w["fc.bias"]

        smooth = targets * (1 - loss.label_smoothing) + loss.label_smoothing / CLASSES
        if loss.type == "softmax":
            p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            value = -(smooth * np.log(p)).sum(1).mean()
        else:
            p = 1 / (1 + np.exp(-logits))
            value = -(smooth * np.log(p) + (1 - smooth) * np.log(1 - p)).sum(1).mean()
        slope = (p - smooth) / len(x)
        back = slope @ w["fc.weight"] * (hidden > 0)
        gradient = {
            "hidden.weight": back.T @ x,
            "hidden.bias": back.sum(0),
            "fc.weight": slope.T @ active,
            "fc.bias": slope.sum(0),
        }
        place = (logits > logits[np.arange(len(x)), labels][:, None]).sum(1)
        return np.array([value, (place < 1).mean(), (place < 5).mean()]), gradient

    def _mixed(self, x, targets, draw_for):
        """Mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of what was drawn."""
        augment = self.recipe.augment
        mix = draw_mix(self.seed, *draw_for, len(x), EDGE, EDGE, augment.mixup, augment.cutmix)
        if mix.kind == "none":
            return x, targets
        other = mix.permutation
        mixed = mix.lam * x + (1 - mix.lam) * x[other]
        if mix.kind == "cutmix":
            mask = np.ones((EDGE, EDGE))
            mask[mix.box[0] : mix.box[1], mix.box[2] : mix.box[3]] = 0
            mixed = x * mask + x[other] * (1 - mask)
            assert mix.lam == pytest.approx(mask.mean())
        return mixed, mix.lam * targets + (1 - mix.lam) * targets[other]


VARIANTS = {
    "plain": {},
    "smooth": {"loss.label_smoothing": 0.2},
    "binary": {"loss.type": "bce", "loss.label_smoothing": 0.1},
    "mixup": {"augment.mixup": 0.8},
    "cutmix": {"augment.cutmix": 1.0, "loss.type": "bce"},
    "accumulated": {"accumulate": 3},
    "clipped": {"optimizer.clip_norm": 0.3},
    "loosely clipped": {"optimizer.clip_norm": 1e6},
    "head": {"head_lr": 10.0},
    "averaged": {"ema.decay": 0.3},
    "all": {
        "accumulate": 2,
        "augment.mixup": 0.8,
        "augment.cutmix": 1.0,
        "optimizer.clip_norm": 0.3,
        "optimizer.weight_decay": 0.1,
        "head_lr": 4.0,
        "ema.decay": 0.9,
        "loss.label_smoothing": 0.1,
    },
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_updates_are_those_worked_out_by_hand(changes):
    recipe = override(RECIPE, changes)
    mge.random.seed(3)
    model = Perceptron()
    train_step = TrainingStep(model, recipe, 11, "cpu")
    hand = ByHand(model, recipe, 11)
    start = {name: value.copy() for name, value in hand.weights.items()}
    for step, rate in enumerate((0.02, 0.01, 0.03, 0.02)):
        batch = random_batch(step, recipe.batch_size * recipe.accumulate)
        expected = hand.update(batch, step, rate)
        assert train_step(batch, step, rate).numpy() == pytest.approx(expected, rel=1e-5)
        assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        moved = np.abs(hand.weights[name] - start[name]).max()
        assert moved > 1e-4
        assert np.abs(value - hand.weights[name]).max() < 1e-4 * moved, name
    if recipe.ema:
        for name, value in train_step.average.state().items():
            moved = np.abs(hand.average[name] - start[name]).max()
            assert np.abs(value - hand.average[name]).max() < 1e-4 * moved, name
    else:
        assert train_step.average is None


def residual(norm=M.BatchNorm2d, drop_path=0.0):
    mge.random.seed(0)
    return CifarResNet(1, num_classes=CLASSES, norm=norm, drop_path=drop_path)


def updated(model, changes, step=0, batch=None, rate=0.05):
    train_step = TrainingStep(model, override(RECIPE, changes), 0, "cpu")
    train_step(batch or random_batch(0, 12), step, rate)
    return model.state_dict()


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_small_batches_accumulate_to_a_large_one(accumulate):
    """Without batch statistics, which are the only difference there is."""
    whole = updated(residual(lambda channels: M.Identity()), {"batch_size": 12})
    small = {"batch_size": 12 // accumulate, "accumulate": accumulate}
    parts = updated(residual(lambda channels: M.Identity()), small)
    start = residual(lambda channels: M.Identity()).state_dict()
    for name, value in whole.items():
        moved = np.abs(value - start[name]).max()
        assert moved > 0
        assert np.abs(value - parts[name]).max() < 1e-4 * moved, name


def test_frozen_stages_stay_and_the_rest_moves():
    model = residual(drop_path=0.5)
    before = model.state_dict()
    after = updated(model, {"freeze": 2, "optimizer.weight_decay": 0.1, "drop_path": 0.5})
    for name, value in before.items():
        frozen = name.startswith(("conv1.", "bn1.", "layer1."))
        assert np.array_equal(after[name], value) == frozen, name


@pytest.mark.parametrize("freeze", [0, 2])
def test_what_is_frozen_does_not_count_when_gradients_are_clipped(freeze):
    """A clipped step of plain SGD is ``rate * clip_norm`` long."""
    model = residual()
    start = {name: value.numpy() for name, value in model.named_parameters()}
    changes = {"freeze": freeze, "optimizer.momentum": 0.0, "optimizer.clip_norm": 0.01}
    updated(model, changes, rate=2.0)
    steps = [value.numpy() - start[name] for name, value in model.named_parameters()]
    length = np.sqrt(sum((step.astype(np.float64) ** 2).sum() for step in steps))
    assert length == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_weight_decay_reaches_what_it_is_for(norm, bias):
    """What two updates that differ in nothing else leave: ``rate * decay * w``."""
    keys = {"optimizer.decay_norm": norm, "optimizer.decay_bias": bias}
    start = residual()
    for parameter in start.parameters():  # biases are zero at first, which would hide it
        parameter._reset(parameter + 0.25)
    state = start.state_dict()
    found = []
    for decay in (0.0, 0.5):
        model = residual()
        model.load_state_dict(state)
        found.append(updated(model, {**keys, "optimizer.weight_decay": decay}))
    for name, _ in start.named_parameters():
        is_norm, is_bias = "bn" in name, name.endswith("bias")
        decays = (norm or not is_norm) and (bias or not is_bias)
        expected = 0.05 * 0.5 * state[name] if decays else np.zeros_like(state[name])
        assert found[0][name] - found[1][name] == pytest.approx(expected, abs=1e-6), name


def test_drop_path_is_drawn_for_the_step(monkeypatch):
    """Whatever was drawn before, as after a resume; and another on every rank."""
    kept = []
    for step, rank, noise in ((3, 0, 0), (3, 0, 1), (4, 0, 0), (3, 1, 0)):
        monkeypatch.setattr(update, "rank", lambda rank=rank: rank)
        model = residual(drop_path=0.6)
        mge.random.seed(noise)
        updated(model, {"drop_path": 0.6}, step=step)
        kept.append(model.state_dict())
    alike = [all(np.array_equal(other[name], kept[0][name]) for name in kept[0]) for other in kept]
    assert alike == [True, True, False, False]


def test_another_seed_drops_other_paths():
    states = []
    for seed in (0, 1):
        model = residual(drop_path=0.6)
        recipe = override(RECIPE, {"drop_path": 0.6})
        TrainingStep(model, recipe, seed, "cpu")(random_batch(0, 12), 0, 0.05)
        states.append(model.state_dict())
    assert not np.array_equal(states[0]["conv1.weight"], states[1]["conv1.weight"])


def test_without_drop_path_nothing_is_seeded():
    mge.random.seed(1)
    expected = mge.random.uniform(size=(4,)).numpy()
    model = residual()
    mge.random.seed(1)
    updated(model, {})
    assert np.array_equal(mge.random.uniform(size=(4,)).numpy(), expected)


def test_an_overflow_skips_the_update_and_its_average(monkeypatch):
    model = residual()
    train_step = TrainingStep(model, override(RECIPE, {"ema.decay": 0.5}), 0, "cpu")
    averages = train_step.average.state()
    before = {name: value.numpy() for name, value in model.named_parameters()}
    monkeypatch.setattr(train_step.scaler, "unscale", lambda parameters: False)
    train_step(random_batch(0, 4), 0, 0.05)
    assert all(np.array_equal(v.numpy(), before[name]) for name, v in model.named_parameters())
    assert all(np.array_equal(v, averages[k]) for k, v in train_step.average.state().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_it_trains_after_an_evaluation():
    """Batch normalisation in evaluation mode would use its running statistics."""
    model = residual()
    model.eval()
    before = model.state_dict()["bn1.running_mean"]
    assert not np.array_equal(updated(model, {})["bn1.running_mean"], before)


@pytest.mark.parametrize("augment", [{}, {"mixup": 0.2}, {"cutmix": 1.0}], ids=str)
def test_images_that_are_mixed_are_not_rounded_before(augment):
    model, wholes = Perceptron(), []

    class Noted(PlainOps):
        def normalize(self, images, mean, std, whole=False):
            wholes.append(whole)
            return super().normalize(images, mean, std, whole)

    model.ops = Noted()
    recipe = override(RECIPE, {f"augment.{name}": alpha for name, alpha in augment.items()})
    if augment:  # one-hot targets go with a loss that takes them
        recipe = override(recipe, {"loss.type": "bce"})
    TrainingStep(model, recipe, 7, "cpu")(random_batch(0, 4), 0, 0.1)
    assert wholes == [bool(augment)]
