import megengine.functional as F
import numpy as np
import pytest
from megengine import Tensor
from megengine.autodiff import GradManager

from official.vision.classification.engine.schema import Loss
from official.vision.classification.training.losses import loss_of

CLASSES = 7
LABELS = np.array([0, 6, 3, 3, 1], np.int32)
EVERY = pytest.mark.parametrize("kind", ["softmax", "bce"])
SMOOTHING = pytest.mark.parametrize("smoothing", [0.0, 0.1])
SCALE = pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])


def one_hot(labels=LABELS):
    return np.eye(CLASSES)[labels]


def mixed():
    return 0.7 * one_hot() + 0.3 * one_hot(LABELS[::-1])


def logits(scale):
    return (np.random.default_rng(0).normal(size=(5, CLASSES)) * scale).astype(np.float32)


def evaluate(kind, smoothing, x, targets):
    """The loss and its gradient."""
    x = Tensor(x)
    gradients = GradManager().attach([x])
    with gradients:
        loss = loss_of(Loss(type=kind, label_smoothing=smoothing))(x, Tensor(targets))
        gradients.backward(loss)
    assert loss.shape == ()
    assert loss.dtype == np.float32
    return loss.item(), x.grad.numpy()


def in_float64(kind, smoothing, x, targets):
    """Value and gradient from the definitions, image by image and class by class."""
    x = x.astype(np.float64)
    targets = targets * (1 - smoothing) + smoothing / CLASSES
    if kind == "bce":
        # -log sigmoid(x) = log(1 + exp(-x)), and -log(1 - sigmoid(x)) = log(1 + exp(x))
        losses = targets * np.logaddexp(0, -x) + (1 - targets) * np.logaddexp(0, x)
        gradient = 0.5 * (1 + np.tanh(x / 2)) - targets
    else:
        log_sum = np.logaddexp.reduce(x, axis=1, keepdims=True)
        losses = targets * (log_sum - x)
        gradient = np.exp(x - log_sum) - targets
    return losses.sum() / len(x), gradient / len(x)


@EVERY
@SMOOTHING
@SCALE
@pytest.mark.parametrize("given", ["labels", "one_hot", "mixed"])
def test_value_and_gradient_next_to_float64(kind, smoothing, scale, given):
    x = logits(scale)
    shares = mixed() if given == "mixed" else one_hot()
    targets = LABELS if given == "labels" else shares.astype(np.float32)
    loss, gradient = evaluate(kind, smoothing, x, targets)
    expected, expected_gradient = in_float64(kind, smoothing, x, shares)
    assert np.isfinite(loss)
    assert loss == pytest.approx(expected, rel=3e-6, abs=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=1e-6)


@SMOOTHING
def test_cross_entropy_of_labels_is_megengines_bit_for_bit(smoothing):
    x = logits(3.0)
    own = F.nn.cross_entropy(Tensor(x), Tensor(LABELS), label_smooth=smoothing)
    assert evaluate("softmax", smoothing, x, LABELS)[0] == own.item()


def test_binary_cross_entropy_is_summed_over_classes():
    """All logits 0: every class costs log 2, in every image."""
    loss, _ = evaluate("bce", 0.1, np.zeros((5, CLASSES), np.float32), LABELS)
    assert loss == pytest.approx(CLASSES * np.log(2), rel=1e-6)


@EVERY
def test_a_confident_wrong_answer_costs_its_logit(kind):
    x = np.zeros((1, CLASSES), np.float32)
    x[0, 2] = -1e6
    x[0, 4] = 1e6
    loss, gradient = evaluate(kind, 0.0, x, np.array([2], np.int32))
    assert loss == pytest.approx(2e6, rel=1e-5)
    assert np.isfinite(gradient).all()


@EVERY
def test_half_precision_logits_are_judged_in_float32(kind):
    x = logits(10.0).astype(np.float16)
    loss, _ = evaluate(kind, 0.1, x, LABELS)
    expected, _ = in_float64(kind, 0.1, x, one_hot())
    assert loss == pytest.approx(expected, rel=1e-6)


@SMOOTHING
@pytest.mark.parametrize("over_classes", ["sum", "mean"])
@pytest.mark.parametrize("share", [0.5, 0.999])
def test_all_classes_of_a_mixed_image_are_there(smoothing, over_classes, share):
    """1 for each, less what smoothing takes, however small its share (arXiv:2110.00476)."""
    x = logits(3.0)
    shares = share * one_hot() + (1 - share) * one_hot(LABELS[::-1])
    present = np.maximum(one_hot(), one_hot(LABELS[::-1]))
    section = Loss(type="bce", label_smoothing=smoothing, mixed="all", over_classes=over_classes)
    found = loss_of(section)(Tensor(x), Tensor(shares.astype(np.float32))).item()
    expected = in_float64("bce", smoothing, x, present)[0]
    expected /= CLASSES if over_classes == "mean" else 1
    assert found == pytest.approx(expected, rel=3e-6)
    plain = loss_of(section)(Tensor(x), Tensor(LABELS)).item()
    expected = in_float64("bce", smoothing, x, one_hot())[0]
    assert plain == pytest.approx(expected / (CLASSES if over_classes == "mean" else 1), rel=3e-6)
