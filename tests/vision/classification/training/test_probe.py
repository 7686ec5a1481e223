import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from official.vision.classification.training.probe import Features, _loss, fit_probe, minimise
from tests.scripts import load_script


def gaussians(rng, per_class, distance=1.0, width=6, classes=3):
    """Classes around different points, on scales that differ from feature to feature."""
    centres = np.random.default_rng(7).normal(size=(classes, width)) * distance
    labels = np.repeat(np.arange(classes), per_class)
    values = (centres[labels] + rng.normal(size=(len(labels), width))) * 10.0 + 50
    return Features(values.astype(np.float32), labels.astype(np.int32))


def newton(inputs, labels, penalty, classes, steps=40):
    """The minimum by Newton's method with the whole Hessian, for an independent answer."""
    count, width = inputs.shape
    weights = np.zeros((width, classes))
    damped = np.diag([penalty] * (width - 1) + [1e-9])
    for _ in range(steps):
        logits = inputs @ weights
        shares = np.exp(logits - logits.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        gradient = inputs.T @ (shares - np.eye(classes)[labels]) / count + damped @ weights
        hessian = np.zeros((width * classes, width * classes))
        for a in range(classes):
            for b in range(classes):
                curve = shares[:, a] * ((a == b) - shares[:, b])
                block = (inputs * curve[:, None]).T @ inputs / count + (a == b) * damped
                hessian[a::classes, b::classes] = block
        weights -= np.linalg.solve(hessian, gradient.ravel()).reshape(width, classes)
    return weights


@pytest.mark.parametrize("penalty", [1e-1, 1e-3])
def test_the_minimum_is_newtons(penalty):
    data = gaussians(np.random.default_rng(0), 40)
    inputs = np.concatenate([(data.values - 50) / 10, np.ones((120, 1))], 1).astype(np.float64)
    expected = newton(inputs, data.labels, penalty, 3)
    found = minimise(lambda w: _loss(inputs, data.labels, penalty, w), np.zeros((7, 3)), 500)
    difference = inputs @ (found - expected)  # a bias that all classes share means nothing
    difference -= difference.mean(1, keepdims=True)
    assert np.abs(difference).max() < 2e-3
    assert _loss(inputs, data.labels, penalty, found)[0] == pytest.approx(
        _loss(inputs, data.labels, penalty, expected)[0], abs=1e-6
    )


def test_the_gradient_is_that_of_the_loss():
    rng = np.random.default_rng(1)
    inputs, labels = rng.normal(size=(9, 4)), rng.integers(0, 3, 9)
    weights = rng.normal(size=(4, 3))
    _, gradient = _loss(inputs, labels, 0.3, weights)
    for place in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[place] = 1e-6
        above, below = (_loss(inputs, labels, 0.3, weights + s * step)[0] for s in (1, -1))
        assert gradient[place] == pytest.approx((above - below) / 2e-6, abs=1e-7)


def test_few_images_get_a_strong_penalty_and_many_a_weak_one():
    rng = np.random.default_rng(2)
    val = gaussians(rng, 300)
    few, many = (fit_probe(gaussians(rng, count), val, 3) for count in (4, 1000))
    assert few.penalty > many.penalty
    assert many.loss < few.loss < np.log(3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_answer_does_not_depend_on_the_scale_of_the_features(scale):
    rng = np.random.default_rng(3)
    train, val = gaussians(rng, 50), gaussians(rng, 50)
    probes = [
        fit_probe(
            *(Features(part.values * np.float32(by), part.labels) for part in (train, val)), 3
        )
        for by in (1.0, scale)
    ]
    logits = [
        (val.values * np.float32(by)) @ probe.weight.T + probe.bias
        for by, probe in zip((1.0, scale), probes)
    ]
    assert probes[0].penalty == probes[1].penalty
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-2, atol=1e-2)
    right = (logits[0].argmax(1) == val.labels).mean()
    assert right > 0.7  # the classifier is of the features themselves, not of centred ones


def test_features_that_are_all_the_same():
    same = Features(np.ones((6, 2), np.float32), np.array([0, 1, 2, 0, 1, 2], np.int32))
    probe = fit_probe(same, same, 3)
    assert np.isfinite(probe.weight).all() and probe.loss == pytest.approx(np.log(3), abs=1e-3)


class TestARun:
    """Through train.py: weights of other classes, and no other flag than what keeps it short."""

    @pytest.fixture()
    def run(self, tmp_path, tiny_images, capsys):
        weights = tmp_path / "start" / "resnet20_cifar" / "best.safetensors"

        def run(*flags):
            code = load_script("train.py").main(
                [
                    *("--data", str(tiny_images), "--arch", "resnet20_cifar", "--device", "cpu"),
                    *("-j", "0", "-b", "8", "--set", "preprocess.resize=16"),
                    *("--set", "preprocess.crop=16", *map(str, flags)),
                ]
            )
            return code, capsys.readouterr().out

        assert run("--epochs", 1, "--save", weights.parents[1])[0] == 0
        tensors = load_file(str(weights))
        path = tmp_path / "weights.safetensors"

        save_file({name: value for name, value in tensors.items() if name[:3] != "fc."}, str(path))
        return lambda *flags: run("--pretrained", path, "--save", tmp_path / "out", *flags)

    def test_it_starts_with_the_probe_and_does_not_end_below(self, run, tmp_path):
        code, out = run("--epochs", 2)
        assert code == 0
        tests = [line for line in out.splitlines() if " Test of averaged weights Acc@1 " in line]
        assert [line.split()[1] for line in tests] == ["0", "1", "2"]
        accuracies = [float(line.split("Acc@1 ")[1].split(",")[0]) for line in tests]
        assert f"best Acc@1 {max(accuracies):.3f}" in out
        assert "linear probe: classifier fitted to the features of 24 images" in out

    def test_linear_probe_alone(self, run, tmp_path):
        code, out = run("--linear-probe")
        assert code == 0 and "Epoch 1" not in out and "Epoch 0 Test Acc@1" in out
        found = load_file(str(tmp_path / "out" / "resnet20_cifar" / "best.safetensors"))
        start = load_file(str(tmp_path / "weights.safetensors"))
        assert all(np.array_equal(found[name], value) for name, value in start.items())

    def test_normalisations_keep_their_statistics(self, run, tmp_path):
        assert run("--epochs", 1)[0] == 0
        found = load_file(str(tmp_path / "out" / "resnet20_cifar" / "checkpoint.safetensors"))
        start = load_file(str(tmp_path / "weights.safetensors"))
        for name, value in start.items():
            same = np.array_equal(found[f"model.{name}"], value)
            assert same == (".running_" in name), name

    def test_a_run_that_goes_on_does_not_start_again(self, run, tmp_path):
        assert run("--epochs", 2)[0] == 0
        code, out = run("--epochs", 3, "--resume", "auto")
        assert code == 0 and "linear probe: classifier" not in out and "Epoch 3 Test Acc@1" in out

    def test_without_weights_there_are_no_features(self, tiny_images, capsys):
        code = load_script("train.py").main(["--data", str(tiny_images), "--linear-probe"])
        assert code == 2 and "give --pretrained" in capsys.readouterr().err
