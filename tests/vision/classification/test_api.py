"""Training and testing from Python, and comparing runs."""

import json
import sys

import pytest

from official.vision.classification import test as test_script
from official.vision.classification import train as train_script
from official.vision.classification.api import test, train
from official.vision.classification.engine.console import read_metrics
from official.vision.classification.errors import UsageError
from official.vision.classification.training import trainer
from official.vision.classification.training.checkpoint import read_checkpoint


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(trainer, "draw_curves", lambda folder: None)


def test_the_numbers_are_the_scripts(tiny_images, tiny_recipe, tmp_path):
    keys = {"epochs": 2, "loss": {"class_weights": "balanced"}, "optimizer": {"lr": 0.02}}
    run = train(
        *(tiny_images, "resnet20_cifar"),
        save=tmp_path / "a",
        config=str(tiny_recipe),
        seed=3,
        device="cpu",
        **keys,
    )
    flags = ["--arch", "resnet20_cifar", "--seed", 3, "--device", "cpu", "--epochs", 2]
    flags += ["--set", "loss.class_weights=balanced", "--set", "optimizer.lr=0.02"]
    command = ["--data", tiny_images, "--save", tmp_path / "b", "-c", tiny_recipe, *flags]
    assert train_script.main([*map(str, command)]) == 0
    other = tmp_path / "b" / "resnet20_cifar"
    assert (run.folder / "recipe.yaml").read_text() == (other / "recipe.yaml").read_text()
    rows = [row for row in read_metrics(other) if row["event"] == "epoch"]
    assert [row for row in run.history if row["event"] == "epoch"] == rows
    progress = read_checkpoint(other / "checkpoint.safetensors")[0]
    assert run.epoch == progress.best_epoch and run.metrics["val_top1"] == progress.best_top1
    assert run.test == {}

    answer = test(tiny_images, run.best, device="cpu", split="train", tta=True)
    result = tmp_path / "result.json"
    command = ["--data", tiny_images, "--model", other / "best.safetensors", "--device", "cpu"]
    command += ["--split", "train", "--tta", "--json", result]
    assert test_script.main([*map(str, command)]) == 0
    assert answer == json.loads(result.read_text()) and answer["total"] == 24


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"loss": {"smoothing": 0.1}}, "loss.smoothing"),
        ({"epochs": 0}, "epochs: '0' is not an integer"),
        ({"device": "tpu"}, "device: 'tpu' is none of"),
        ({"patience": 0}, "patience"),
    ],
)
def test_wrong_keys(tiny_images, tmp_path, keys, message):
    with pytest.raises(UsageError, match=message):
        train(tiny_images, "resnet20_cifar", save=tmp_path, **keys)
    assert not list(tmp_path.iterdir())


def test_wrong_flags_of_a_test(tiny_images):
    with pytest.raises(UsageError, match="splits: test.py has no flag --splits"):
        test(tiny_images, splits="val")


def test_the_modules_stay_what_they_are():
    """The commands that pip installs, and ``python -m``, need them."""
    assert sys.modules["official.vision.classification.train"] is train_script
    assert callable(train_script.main) and callable(test_script.main)
