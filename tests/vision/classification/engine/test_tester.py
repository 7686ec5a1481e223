import json
from dataclasses import replace
from pathlib import Path

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.image import read_image
from official.vision.classification.engine.network import NetworkConfig, open_network
from official.vision.classification.engine.tester import TestConfig as Config
from official.vision.classification.engine.tester import test as run_test
from official.vision.classification.errors import DataError, UsageError
from official.vision.classification.resnet.cifar import resnet20_cifar

WHOLE = {"mean": [128, 128, 128], "std": [64, 64, 64], "resize": None, "crop": None}


@pytest.fixture()
def config(tiny_images, tmp_path):
    path = tmp_path / "weights.pkl"
    mge.random.seed(3)
    mge.save(resnet20_cifar(num_classes=3).state_dict(), str(path))
    return Config(
        data=str(tiny_images),
        network=NetworkConfig("resnet20_cifar", str(path), preprocess=WHOLE),
        device="cpu",
        batch_size=4,
        print_freq=2,
        json=str(tmp_path / "result.json"),
    )


def guessed(config):
    """The images, and the class the network gives to each by itself."""
    network = open_network(config.network)
    folder = load_split(config.data, "val")
    images = [(read_image(path).astype(np.float32) - 128) / 64 for path in folder.paths]
    batches = [mge.Tensor(np.stack([image.transpose(2, 0, 1)])) for image in images]
    return folder, np.array([network.model(batch).numpy()[0].argmax() for batch in batches])


def test_counts_are_those_of_one_image_after_another(config, capsys):
    """The same network asked for each image by itself, without loader and evaluator."""
    assert run_test(config) == 0
    folder, guesses = guessed(config)
    correct = int((guesses == folder.labels).sum())
    result = json.loads(Path(config.json).read_text())
    assert result["top1_correct"] == correct
    assert result["top5_correct"] == result["total"] == 15
    assert result["top1"] == 100 * correct / 15

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == ["Test step 0", "Test step 2"]
    assert lines[-1] == f"Test Acc@1 {100 * correct / 15:.3f}, Acc@5 100.000"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 1, 0)])
def test_a_class_map_gives_the_labels(config, tmp_path, order):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(dict(zip(("blue", "green", "red"), order))))
    assert run_test(replace(config, class_map=str(path))) == 0
    folder, guesses = guessed(config)
    correct = int((guesses == np.array(order)[folder.labels]).sum())
    assert json.loads(Path(config.json).read_text())["top1_correct"] == correct


def test_a_class_map_that_does_not_fit(config, tmp_path):
    path = tmp_path / "map.yaml"
    for text, error, message in [
        ("blue: 0\ngreen: 1\n", DataError, "class folder red is not in the --class-map"),
        ("blue: 0\ngreen: 1\nred: 3\n", UsageError, "class 3 is not one of 0 to 2"),
        ("blue", UsageError, "expected lines of folder: class"),
    ]:
        path.write_text(text)
        with pytest.raises(error, match=message):
            run_test(replace(config, class_map=str(path)))


def test_an_image_that_cannot_be_read_is_named(config, tmp_path):
    for name in ("blue", "green", "red"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="0.png: not an image"):
        run_test(replace(config, data=str(tmp_path / "data")))


def test_an_answer_that_cannot_be_written(config, tmp_path):
    """Which is told before the data set, or anything else, is looked at."""
    (tmp_path / "folder").mkdir()
    for path, message in (("no/such/result.json", "there is no folder"), ("folder", "is a folder")):
        with pytest.raises(UsageError, match=f"--json {tmp_path / path}: {message}"):
            run_test(replace(config, data="nowhere", json=str(tmp_path / path)))
