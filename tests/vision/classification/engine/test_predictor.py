import json

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.engine.network import Network
from official.vision.classification.engine.picture import annotate
from official.vision.classification.engine.predictor import (
    Guess,
    PredictConfig,
    classify,
    describe,
    predict,
)
from official.vision.classification.errors import TrainingError, UserError
from official.vision.classification.preprocess import Preprocess
from official.vision.classification.resnet.cifar import resnet20_cifar

PLAIN = Preprocess("BGR", (0, 0, 0), (1, 1, 1), resize=None, crop=None)


def network_of(function, names, preprocess=PLAIN):
    return Network(function, "resnet18", len(names), names, False, preprocess)


def channel_means(images):
    return mge.functional.log(images.mean(axis=(2, 3)))


def test_probabilities_are_the_softmax_best_first():
    image = np.zeros((5, 7, 3), np.uint8)
    image[:] = (20, 50, 30)  # softmax of a log is the share
    guesses = classify(network_of(channel_means, ("b", "g", "r")), image)
    assert [(g.name, g.index) for g in guesses] == [("g", 1), ("r", 2), ("b", 0)]
    assert [g.probability for g in guesses] == pytest.approx([0.5, 0.3, 0.2], rel=1e-5)
    assert len(classify(network_of(channel_means, ("b", "g", "r")), image, top_k=2)) == 2


def test_channel_order_is_the_weights():
    image = np.zeros((5, 7, 3), np.uint8)
    image[:] = (20, 50, 30)
    rgb = Preprocess("RGB", (0, 0, 0), (1, 1, 1), resize=None, crop=None)
    best = classify(network_of(channel_means, ("r", "g", "b"), rgb), image)
    assert [g.name for g in best] == ["g", "r", "b"]


def test_outputs_that_are_not_finite_are_an_error():
    image = np.zeros((5, 7, 3), np.uint8)  # log(0)
    with pytest.raises(TrainingError, match="not finite"):
        classify(network_of(channel_means, ("b", "g", "r")), image)


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
    preprocess = {"resize": 16, "crop": 16}
    return PredictConfig(image, "resnet20_cifar", trained, preprocess=preprocess, device="cpu")


def test_json_says_what_the_lines_say(config, capsys):
    predict(config)
    lines = capsys.readouterr().out.splitlines()
    predict(PredictConfig(**{**vars(config), "json": True}))
    (text,) = capsys.readouterr().out.splitlines()
    answer = json.loads(text)
    assert answer["image"] == config.image
    assert lines == [describe(i, Guess(**guess)) for i, guess in enumerate(answer["top"])]
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_picture_is_saved_with_the_classes_below(config, tmp_path, suffix):
    path = tmp_path / f"answer{suffix}"
    predict(PredictConfig(**{**vars(config), "save_image": str(path)}))
    assert cv2.imread(str(path)).shape == (480 + 3 * 30 + 10, 480, 3)


def test_a_picture_that_cannot_be_saved(config, tmp_path):
    for path, message in (("a.gif", "must end in .png or .jpg"), ("no/such/a.png", "No such file")):
        with pytest.raises(UserError, match=message):
            predict(PredictConfig(**{**vars(config), "save_image": str(tmp_path / path)}))


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
