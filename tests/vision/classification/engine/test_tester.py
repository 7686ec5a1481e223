import json
from pathlib import Path

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.image import read_image
from official.vision.classification.engine.network import open_network
from official.vision.classification.engine.tester import TestConfig as Config
from official.vision.classification.engine.tester import test as run_test
from official.vision.classification.errors import DataError, UserError
from official.vision.classification.resnet.cifar import resnet20_cifar

WHOLE = {"mean": [128, 128, 128], "std": [64, 64, 64], "resize": None, "crop": None}


@pytest.fixture()
def config(tiny_images, tmp_path):
    path = tmp_path / "weights.pkl"
    mge.random.seed(3)
    mge.save(resnet20_cifar(num_classes=3).state_dict(), str(path))
    return {
        "data": str(tiny_images),
        "arch": "resnet20_cifar",
        "model": str(path),
        "preprocess": WHOLE,
        "device": "cpu",
        "batch_size": 4,
        "print_freq": 2,
        "json": str(tmp_path / "result.json"),
    }


def test_counts_are_those_of_one_image_after_another(config, capsys):
    """The same network asked for each image by itself, without loader and evaluator."""
    assert run_test(Config(**config)) == 0
    network = open_network("resnet20_cifar", config["model"])
    folder = load_split(config["data"], "val")
    correct = 0
    for path, label in zip(folder.paths, folder.labels):
        image = (read_image(path).astype(np.float32) - 128) / 64
        logits = network.model(mge.Tensor(np.stack([image.transpose(2, 0, 1)]))).numpy()[0]
        correct += int(logits.argmax() == label)
    result = json.loads(Path(config["json"]).read_text())
    assert result["top1_correct"] == correct
    assert result["top5_correct"] == result["total"] == 15
    assert result["top1"] == 100 * correct / 15

    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines[:-1]] == ["Test step 0", "Test step 2"]
    assert lines[-1] == f"Test Acc@1 {100 * correct / 15:.3f}, Acc@5 100.000"


def test_an_image_that_cannot_be_read_is_named(config, tmp_path):
    for name in ("blue", "green", "red"):
        folder = tmp_path / "data" / "val" / name
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="0.png: not an image"):
        run_test(Config(**{**config, "data": str(tmp_path / "data")}))


def test_an_answer_that_cannot_be_written(config, tmp_path):
    with pytest.raises(UserError, match="--json"):
        run_test(Config(**{**config, "json": str(tmp_path / "no" / "such" / "folder.json")}))
