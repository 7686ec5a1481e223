"""The weights that come along with the code."""

import dataclasses
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from official.vision.classification.engine.network import NetworkConfig, open_network
from official.vision.classification.errors import WeightsError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.complexity import complexity
from official.vision.classification.zoo import CARDS, default_card, get_model
from official.vision.classification.zoo.cards.own import OWN
from official.vision.classification.zoo.classes import dataset_classes
from official.vision.classification.zoo.download import file_digest

ASSETS = Path(__file__).resolve().parents[4] / "official" / "assets"


@pytest.fixture(params=OWN, ids=lambda card: card.name)
def card(request):
    return request.param


@pytest.fixture(autouse=True)
def _offline(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise AssertionError("no network is needed for what comes along")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "cache"))


def test_every_file_has_a_card():
    cards = {card.shipped for card in CARDS if card.shipped is not None}
    assert cards == set((ASSETS / "weights").iterdir()) == {card.shipped for card in OWN}


def test_the_card_tells_what_the_file_does(card):
    assert file_digest(card.shipped, "sha256") == card.digest_prefix
    assert card.shipped.stem == f"{card.name}-{card.digest_prefix[:8]}"
    with safe_open(str(card.shipped), "np") as file:
        described = json.loads(file.metadata()["resnet"])
        assert described["arch"] == card.arch
        assert described["classes"] == list(dataset_classes(card.dataset))
        assert Preprocess.from_dict(described["preprocess"]) == card.preprocess
        statistics = [name for name in file.keys() if ".running_" in name]  # noqa: SIM118
        trained = {name: file.get_tensor(name) for name in set(file.keys()) - set(statistics)}
    assert sum(value.size for value in trained.values()) == card.params


def test_a_network_gets_them_offline(card, tmp_path):
    model = get_model(card.arch, pretrained=True, num_classes=card.num_classes)
    with safe_open(str(card.shipped), "np") as file:
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, file.get_tensor(name).reshape(value.shape))
    assert model.pretrained_config.classes == dataset_classes(card.dataset)
    assert model.pretrained_config.preprocess == card.preprocess
    assert default_card(card.arch) is card
    assert not (tmp_path / "cache").exists()  # used where it lies


def test_other_classes_get_a_new_classifier(card, caplog):
    model = get_model(card.arch, pretrained=True, num_classes=3)
    assert model.fc.out_features == 3 and model.pretrained_config.classes is None
    assert f"has {card.num_classes} classes; the classifier starts anew with 3" in caplog.text


def test_scripts_need_no_model(card):
    network = open_network(NetworkConfig(arch=card.arch))
    assert network.num_classes == card.num_classes
    assert network.classes == dataset_classes(card.dataset)
    assert network.preprocess == card.preprocess


def test_a_changed_file_is_refused(card, monkeypatch, tmp_path):
    from official.vision.classification.zoo.cards import BY_NAME

    data = bytearray(card.shipped.read_bytes())
    data[-1] ^= 1
    copy = tmp_path / card.shipped.name
    copy.write_bytes(bytes(data))
    changed = dataclasses.replace(card, url=str(copy))  # an absolute path stays what it is
    assert changed.shipped == copy
    monkeypatch.setitem(BY_NAME, card.name, changed)
    with pytest.raises(WeightsError, match=r"not the weights of .* \(sha256 .*fetch .* again"):
        get_model(card.arch, pretrained=card.name, num_classes=card.num_classes)
    copy.unlink()
    with pytest.raises(WeightsError, match=f"{copy.name}: .*No such file"):
        get_model(card.arch, pretrained=card.name, num_classes=card.num_classes)


def test_the_counts_are_the_networks(card):
    cost = complexity(get_model(card.arch, num_classes=card.num_classes), card.preprocess.crop)
    assert cost.params == card.params
    assert cost.macs == pytest.approx(card.macs, rel=1e-3)
