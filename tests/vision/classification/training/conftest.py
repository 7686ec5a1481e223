"""Runs small enough to be started, stopped and resumed by the dozen."""

from pathlib import Path
from typing import List

import pytest

from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.resnet.pretrained import accepts_pretrained
from official.vision.classification.training import trainer
from official.vision.classification.training.trainer import TrainConfig
from official.vision.classification.zoo.models import ARCHS


@pytest.fixture()
def config(tiny_images: Path, tiny_recipe: Path, tmp_path: Path) -> TrainConfig:
    """Twelve steps of ResNet-20: four epochs of three batches of eight images."""
    return TrainConfig(
        data=str(tiny_images),
        arch="resnet20_cifar",
        recipe=load_recipe(str(tiny_recipe)),
        save=str(tmp_path / "run"),
        device="cpu",
        print_freq=2,
    )


@pytest.fixture()
def folder(config: TrainConfig) -> Path:
    """Where that run leaves its files."""
    return Path(config.save) / config.arch


@pytest.fixture()
def curves(monkeypatch: pytest.MonkeyPatch) -> List[Path]:
    """Drawing takes longer than these runs: the folders it was asked for, instead."""
    asked: List[Path] = []
    monkeypatch.setattr(trainer, "draw_curves", asked.append)
    monkeypatch.setattr(trainer, "DRAW_EVERY", 0.0)
    return asked


def resnet8_cifar(**kwargs: object) -> CifarResNet:
    """The smallest of the 6n + 2 layers of He et al., section 4.2."""
    return CifarResNet(1, **kwargs)


@pytest.fixture()
def small(monkeypatch: pytest.MonkeyPatch, curves: List[Path]) -> None:
    """Let ``resnet20_cifar`` be a network of 8 layers, and draw no curves."""
    monkeypatch.setitem(ARCHS, "resnet20_cifar", accepts_pretrained(resnet8_cifar))
