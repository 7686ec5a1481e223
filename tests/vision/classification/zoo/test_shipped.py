"""The weights that come along with the code."""

import dataclasses
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from official.vision.classification.errors import WeightsError
from official.vision.classification.prediction.inference import inference_model
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.complexity import complexity
from official.vision.classification.zoo import ROWS, default_row, get_model
from official.vision.classification.zoo.classes import dataset_classes
from official.vision.classification.zoo.download import file_digest
from official.vision.classification.zoo.rows.own import OWN
from official.vision.classification.zoo.trained import NetworkConfig, open_network

ASSETS = Path(__file__).resolve().parents[4] / "official" / "assets"


@pytest.fixture(params=OWN, ids=lambda row: row.name)
def row(request):
    return request.param


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("no network is needed for what comes along")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "cache"))


def test_every_file_has_a_row():
    rows = {row.shipped for row in ROWS if row.shipped is not None}
    assert rows == set((ASSETS / "weights").iterdir()) == {row.shipped for row in OWN}


def test_the_card_tells_what_the_file_does(row):
    assert file_digest(row.shipped, "sha256") == row.digest_prefix
    assert row.shipped.stem == f"{row.name}-{row.digest_prefix[:8]}"
    with safe_open(str(row.shipped), "np") as file:
        described = json.loads(file.metadata()["resnet"])
        assert described["arch"] == row.arch
        assert described["classes"] == list(dataset_classes(row.dataset))
        assert Preprocess.from_dict(described["preprocess"]) == row.preprocess
        statistics = [name for name in file.keys() if ".running_" in name]  # noqa: SIM118
        trained = {name: file.get_tensor(name) for name in set(file.keys()) - set(statistics)}
    assert sum(value.size for value in trained.values()) == row.params


def test_a_network_gets_them_offline(row, tmp_path):
    model = get_model(row.arch, pretrained=True, num_classes=row.num_classes)
    with safe_open(str(row.shipped), "np") as file:
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, file.get_tensor(name).reshape(value.shape))
    assert model.pretrained_config.classes == dataset_classes(row.dataset)
    assert model.pretrained_config.preprocess == row.preprocess
    assert default_row(row.arch) is row
    assert not (tmp_path / "cache").exists()  # used where it lies


def test_other_classes_get_a_new_classifier(row, caplog):
    model = get_model(row.arch, pretrained=True, num_classes=3)
    assert model.fc.out_features == 3 and model.pretrained_config.classes is None
    assert f"has {row.num_classes} classes; the classifier starts anew with 3" in caplog.text


def test_scripts_need_no_model(row):
    network = open_network(NetworkConfig(arch=row.arch))
    assert network.num_classes == row.num_classes
    assert network.classes == dataset_classes(row.dataset)
    assert network.preprocess == row.preprocess


def test_the_photograph_that_comes_along_is_named(row):
    """Which is what ``make demo`` ends with: a cat, told by weights that have never seen it."""
    answer = inference_model(row.name, str(ASSETS / "cat.jpg"), top_k=10)
    assert answer["pred_class"] == "cat" and answer["pred_score"] > 0.5
    assert abs(sum(score["pred_score"] for score in answer["top_k"]) - 1) < 1e-5


def test_the_photograph_may_be_given_on():
    assert (ASSETS / "cat.jpg").stat().st_size < 100_000
    licence = (ASSETS / "cat.LICENSE.txt").read_text(encoding="utf-8")
    assert "CC0" in licence and "Stefan van der Walt" in licence


def test_a_changed_file_is_refused(row, monkeypatch, tmp_path):
    from official.vision.classification.zoo.rows import BY_NAME

    data = bytearray(row.shipped.read_bytes())
    data[-1] ^= 1
    copy = tmp_path / row.shipped.name
    copy.write_bytes(bytes(data))
    changed = dataclasses.replace(row, url=str(copy))  # an absolute path stays what it is
    assert changed.shipped == copy
    monkeypatch.setitem(BY_NAME, row.name, changed)
    with pytest.raises(WeightsError, match=r"not the weights of .* \(sha256 .*fetch .* again"):
        get_model(row.arch, pretrained=row.name, num_classes=row.num_classes)
    copy.unlink()
    with pytest.raises(WeightsError, match=f"{copy.name}: .*No such file"):
        get_model(row.arch, pretrained=row.name, num_classes=row.num_classes)


def test_the_counts_are_the_networks(row):
    cost = complexity(get_model(row.arch, num_classes=row.num_classes), row.preprocess.crop)
    assert cost.params == row.params
    assert cost.macs == pytest.approx(row.macs, rel=1e-3)
