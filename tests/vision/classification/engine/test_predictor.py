import errno
import json
import os
from dataclasses import replace

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.engine.inference import Guess, inference_model
from official.vision.classification.engine.network import NetworkConfig
from official.vision.classification.engine.picture import annotate
from official.vision.classification.engine.predictor import PredictConfig, describe, predict
from official.vision.classification.errors import DataError, UsageError, UserError
from official.vision.classification.resnet.cifar import resnet20_cifar

SIXTEEN = {"resize": 16, "crop": 16}


def test_lines_are_the_seeds():
    lines = [
        describe(0, Guess(287, "lynx", 0.25249)),
        describe(3, Guess(283, "Persian_cat", 0.083)),
    ]
    assert lines == [
        "0: class = lynx                 with probability = 25.2 %",
        "3: class = Persian_cat          with probability =  8.3 %",
    ]


@pytest.fixture()
def trained(tmp_path):
    path = tmp_path / "weights.pkl"
    network = resnet20_cifar(num_classes=3)
    mge.save(network.state_dict(), str(path))
    return str(path)


@pytest.fixture()
def config(trained, tiny_images):
    image = str(tiny_images / "val" / "red" / "0.png")
    network = NetworkConfig("resnet20_cifar", trained, preprocess=SIXTEEN)
    return PredictConfig(image, network, device="cpu")


def test_json_says_what_the_lines_say(config, capsys):
    predict(config)
    lines = capsys.readouterr().out.splitlines()
    predict(replace(config, json=True))
    (text,) = capsys.readouterr().out.splitlines()
    answer = json.loads(text)
    assert answer["image"] == config.image
    assert lines == [describe(i, Guess(**guess)) for i, guess in enumerate(answer["top"])]
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)


def test_top_k_and_what_inference_model_says(config, trained, capsys):
    predict(replace(config, json=True, top_k=2))
    answer = json.loads(capsys.readouterr().out)
    model = resnet20_cifar(num_classes=3, pretrained=trained)
    own = model.pretrained_config
    model.pretrained_config = replace(own, preprocess=own.preprocess.override(SIXTEEN))
    told = inference_model(model, config.image, top_k=2)["top_k"]
    assert [guess["index"] for guess in answer["top"]] == [guess["pred_label"] for guess in told]
    assert [guess["probability"] for guess in answer["top"]] == pytest.approx(
        [guess["pred_score"] for guess in told]
    )


def test_a_picture_that_does_not_fit_is_named(config):
    preprocess = {"resize": None, "crop": 64}
    network = replace(config.network, preprocess=preprocess)
    with pytest.raises(DataError) as caught:
        predict(replace(config, network=network))
    assert str(caught.value) == (
        f"{config.image}: an image of 20x20 pixels is too small for a crop of 64"
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_picture_is_saved_with_the_classes_below(config, tmp_path, suffix):
    path = tmp_path / f"answer{suffix}"
    predict(replace(config, save_image=str(path)))
    assert cv2.imread(str(path)).shape == (480 + 3 * 30 + 10, 480, 3)


def test_a_picture_that_cannot_be_saved(config, tmp_path):
    """It is told at once, before a picture or weights are looked for."""
    (tmp_path / "folder.png").mkdir()
    nothing = replace(config, image="no.jpg", network=NetworkConfig(model="no.pkl"))
    for path, message in [
        ("a.gif", "a.gif: the name must end in .png or .jpg"),
        ("no/such/a.png", "no/such; make it first"),
        ("folder.png", "folder.png: is a folder"),
    ]:
        with pytest.raises(UsageError, match=f"--save-image .*{message}"):
            predict(replace(nothing, save_image=str(tmp_path / path)))


def test_a_disk_that_is_full(config, tmp_path, monkeypatch):
    def write_bytes(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(tmp_path), "write_bytes", write_bytes)
    with pytest.raises(UserError, match="a.png: cannot be written: No space left"):
        predict(replace(config, save_image=str(tmp_path / "a.png")))


def test_bars_are_as_long_as_the_probabilities():
    image = np.zeros((50, 100, 3), np.uint8)
    picture = annotate(image, [Guess(0, "", 0.5), Guess(1, "", 1.0)])
    assert picture.shape == (240 + 70, 480, 3)
    assert not picture[:240].any()
    for row, length in ((0, 235), (1, 470)):
        bar = (picture[240 + 5 + 30 * row + 4] == (230, 190, 140)).all(1)
        assert abs(bar.sum() - length) <= 1


def test_names_with_other_letters_are_drawn():
    annotate(np.zeros((8, 8, 3), np.uint8), [Guess(0, "山猫", 1.0)])
