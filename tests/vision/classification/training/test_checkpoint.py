import json
from dataclasses import replace

import megengine as mge
import numpy as np
import pytest
from megengine.autodiff import GradManager
from megengine.optimizer import SGD
from safetensors.numpy import load_file, save_file

from official.vision.classification.errors import WeightsError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.cifar import CifarResNet
from official.vision.classification.training import checkpoint
from official.vision.classification.training.checkpoint import (
    Progress,
    collect_tensors,
    read_checkpoint,
    restore,
    save_checkpoint,
    save_weights,
)
from official.vision.classification.training.ema import ExponentialAverage
from official.vision.classification.zoo import load_weights

PROGRESS = Progress(
    arch="resnet20_cifar",
    classes=("ant", "bee"),
    preprocess=Preprocess(resize=32, crop=32),
    recipe={"epochs": 3},
    seed=5,
    step=17,
    total_batch=32,
    best_top1=12.5,
)


def trained(seed=0):
    """A small network after one step, and its optimizer, whose momentum is then not zero."""
    mge.random.seed(seed)
    network = CifarResNet(1, num_classes=2)
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    x = mge.Tensor(np.random.default_rng(seed).normal(size=(4, 3, 8, 8)).astype(np.float32))
    manager = GradManager().attach(network.parameters())
    with manager:
        manager.backward((network(x) ** 2).sum())
    optimizer.step().clear_grad()
    return network, optimizer


def restore_from(path, network, optimizer, average=None):
    progress, tensors = read_checkpoint(path)
    restore(path, tensors, network, optimizer, average)
    return progress


def everything(network, optimizer):
    momentum = [value.numpy() for _, value in checkpoint._optimizer_state(network, optimizer)]
    return [*network.state_dict().values(), *momentum]


@pytest.fixture()
def saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network, optimizer = trained()
    save_checkpoint(path, collect_tensors(network, optimizer), PROGRESS)
    return path, everything(network, optimizer)


def test_everything_comes_back_bit_for_bit(saved):
    path, expected = saved
    network, optimizer = trained(seed=1)
    before = everything(network, optimizer)
    assert restore_from(path, network, optimizer) == PROGRESS
    after = everything(network, optimizer)
    assert len(after) == len(expected) > 40
    assert all(np.array_equal(a, b) for a, b in zip(after, expected))
    assert not all(np.array_equal(a, b) for a, b in zip(before, expected))


def test_the_file_is_plain_safetensors_and_usable_as_weights(saved):
    path, _ = saved
    tensors = load_file(str(path))
    assert tensors["model.conv1.weight"].shape == (16, 3, 3, 3)
    assert np.abs(tensors["optimizer.conv1.weight.momentum_buffer"]).max() > 0
    weights = load_weights(path)
    assert weights.arch == "resnet20_cifar"
    assert weights.classes == ("ant", "bee")
    assert weights.preprocess == PROGRESS.preprocess
    assert not any(name.startswith("optimizer") for name in weights.tensors)
    assert "conv1.weight" in weights.tensors


def test_a_flipped_bit_anywhere_is_noticed(saved):
    path, _ = saved
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 150):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(WeightsError):
            read_checkpoint(path)


def test_a_file_that_is_cut_short_is_noticed(saved):
    path, _ = saved
    data = path.read_bytes()
    for length in [0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError, match=path.name):
            read_checkpoint(path)


def test_another_networks_checkpoint_changes_nothing(saved):
    path, _ = saved
    network = CifarResNet(2, num_classes=2)
    optimizer = SGD(network.parameters(), lr=0.1, momentum=0.9)
    before = everything(network, optimizer)
    with pytest.raises(WeightsError, match="not those of this run"):
        restore_from(path, network, optimizer)
    assert all(np.array_equal(a, b) for a, b in zip(everything(network, optimizer), before))


def test_a_weight_file_is_no_checkpoint(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"fc.weight": np.zeros((2, 3), np.float32)}, str(path))
    with pytest.raises(WeightsError, match="--pretrained"):
        read_checkpoint(path)


def test_another_version_is_refused(saved, monkeypatch):
    path, _ = saved
    network, optimizer = trained()
    newer = json.loads(PROGRESS.to_json())
    newer["version"] += 1
    monkeypatch.setattr(Progress, "to_json", lambda self: json.dumps(newer))
    save_checkpoint(path, collect_tensors(network, optimizer), PROGRESS)
    with pytest.raises(WeightsError, match="another version"):
        read_checkpoint(path)


def test_averaged_weights_come_back_bit_for_bit(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network, optimizer = trained()
    average = ExponentialAverage(network, 0.9)
    expected = {name: value / 2 for name, value in average.state().items()}
    average.load(expected)
    save_checkpoint(path, collect_tensors(network, optimizer, average), PROGRESS)
    assert load_weights(path).tensors.keys() == network.state_dict().keys()  # not the averages

    other = ExponentialAverage(trained(seed=2)[0], 0.9)
    restore_from(path, *trained(seed=2), other)
    assert all(np.array_equal(value, expected[name]) for name, value in other.state().items())
    with pytest.raises(WeightsError, match="not those of this run"):
        restore_from(path, *trained(seed=2))  # a run without averages


def test_best_weights_are_no_checkpoint(tmp_path):
    path = tmp_path / "best.safetensors"
    network, _ = trained()
    save_weights(path, network.state_dict(), PROGRESS)
    weights = load_weights(path)
    assert (weights.arch, weights.classes) == ("resnet20_cifar", ("ant", "bee"))
    assert all(np.array_equal(weights.tensors[k], v) for k, v in network.state_dict().items())
    with pytest.raises(WeightsError, match="weights only, no checkpoint"):
        read_checkpoint(path)


def test_progress_survives_json():
    assert Progress.from_json(replace(PROGRESS, step=3).to_json()) == replace(PROGRESS, step=3)


@pytest.mark.parametrize("text", ["null", "3", '"version"', "[]", "true", '["version"]'])
def test_a_description_that_is_no_map(saved, monkeypatch, text):
    path, _ = saved
    monkeypatch.setattr(Progress, "to_json", lambda self: text)
    save_checkpoint(path, collect_tensors(*trained()), PROGRESS)
    with pytest.raises(WeightsError, match="cannot be resumed: its description is no map"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": 3, "best_epoch": 4}, "best_epoch: 4 is after its last step"),
        ({"loss": 1.0}, r"\['loss'\] are no keys"),
    ],
)
def test_a_description_of_what_cannot_be(change, message):
    text = json.dumps({**json.loads(PROGRESS.to_json()), **change})
    with pytest.raises(ValueError, match=message):
        Progress.from_json(text)
