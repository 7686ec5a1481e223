import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.image import read_image
from official.vision.classification.distributed.launch import Topology
from official.vision.classification.errors import DataError, UsageError
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.testing import tester
from official.vision.classification.testing.calibration import calibrate
from official.vision.classification.testing.tester import TestConfig as Config
from official.vision.classification.testing.tester import test as run_test
from official.vision.classification.zoo.trained import NetworkConfig, open_network

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
        language="en",
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
    assert result["top1"] == float(f"{100 * correct / 15:.7g}")
    numbers = [value for value in result.values() if not isinstance(value, dict)]
    numbers += [value for of in result["classes"].values() for value in of.values()]
    assert len(numbers) == 10 + 3 * 4 and all(len(repr(value)) <= 9 for value in numbers)

    which, *lines = capsys.readouterr().out.splitlines()
    assert which == f"testing on 15 images in {config.data}/val"
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


def logits_of(network, image):
    """Of pixels as they are decoded."""
    x = ((image.astype(np.float32) - 128) / 64).transpose(2, 0, 1)[None]
    return network.model(mge.Tensor(np.ascontiguousarray(x))).numpy()[0]


def softmax_of(network, image):
    """In float64."""
    logits = logits_of(network, image).astype(float)
    return np.exp(logits) / np.exp(logits).sum()


def test_mirrored_images_are_told_apart(config, capsys):
    """Against asking the network twice for each image, once for what OpenCV mirrors."""
    assert run_test(replace(config, tta=True)) == 0
    network, folder = open_network(config.network), load_split(config.data, "val")
    plain, both = [], []
    for path in folder.paths:
        image = read_image(path)
        plain.append(softmax_of(network, image))
        both.append((plain[-1] + softmax_of(network, cv2.flip(image, 1))) / 2)
    answer = json.loads(Path(config.json).read_text())
    rows = np.arange(15)
    for told, means in ((answer, plain), (answer["tta"], both)):
        means = np.array(means)
        assert told["top1_correct"] == (means.argmax(1) == folder.labels).sum()
        assert told["loss"] == pytest.approx(-np.log(means[rows, folder.labels]).mean(), rel=1e-5)
    assert answer["tta"]["loss"] != answer["loss"]
    assert (answer["tta"]["top5_correct"], answer["tta"]["total"]) == (15, 15)
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first == f"Test Acc@1 {answer['top1']:.3f}, Acc@5 100.000"
    assert second == f"Flip TTA Acc@1 {answer['tta']['top1']:.3f}, Acc@5 100.000"


def test_calibration_is_that_of_the_logits(config, capsys):
    assert run_test(replace(config, calibrate=True)) == 0
    network, folder = open_network(config.network), load_split(config.data, "val")
    logits = [logits_of(network, read_image(path)) for path in folder.paths]
    expected = calibrate(np.stack(logits), folder.labels)
    told = json.loads(Path(config.json).read_text())["calibration"]
    assert told == pytest.approx(expected.to_dict(), rel=1e-3)
    assert (told["fitted_on"], told["judged_on"]) == (8, 7)
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].startswith(f"Temperature {told['temperature']:.4f}, fitted on every other")
    assert lines[1].startswith(f"ECE {100 * told['ece_before']:.3f} % before, ")


def test_any_number_of_processes_says_the_same(config):
    """Batches of one, since rounding may depend on a batch's size: all numbers are the same."""
    whole = replace(config, batch_size=1, workers=1, tta=True, calibrate=True)
    answers = []
    for processes in (1, 2):
        assert run_test(replace(whole, topology=Topology(ngpus=processes))) == 0
        answers.append(json.loads(Path(config.json).read_text()))
    for result in (answers[0], answers[0]["tta"]):
        result["loss"] = pytest.approx(result["loss"], rel=1e-6)  # the sum of ranks' float32
    assert answers[1] == answers[0]
    assert answers[0]["calibration"]["temperature"] not in (0.001, 1, 1000)


def test_calibration_needs_two_images(config, tmp_path):
    pixels = np.zeros((20, 20, 3), np.uint8)
    (tmp_path / "data" / "val" / "blue").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "val" / "blue" / "0.png"), pixels)
    class_map = tmp_path / "map.json"
    class_map.write_text('{"blue": 0}')
    one = replace(config, data=str(tmp_path / "data"), class_map=str(class_map))
    assert run_test(one) == 0
    with pytest.raises(DataError, match="--calibrate needs two images or more, but there is 1"):
        run_test(replace(one, calibrate=True))


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


def rows_of(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_a_report_tells_the_answer_to_every_image(config, tmp_path, capsys):
    """The same network asked for each image by itself."""
    target = tmp_path / "new" / "report"
    assert run_test(replace(config, report=str(target))) == 0
    folder, guesses = guessed(config)
    network, rows = open_network(config.network), rows_of(target)
    assert [row["image"] for row in rows] == list(folder.paths)
    for row, label, guess, path in zip(rows, folder.labels, guesses, folder.paths):
        p = softmax_of(network, read_image(path))
        assert (row["true_class"], row["true_index"]) == (folder.classes[label], str(label))
        assert (row["class_1"], row["index_1"]) == (folder.classes[guess], str(guess))
        assert row["correct"] == str(int(label == guess))
        assert float(row["probability_1"]) == pytest.approx(p.max(), rel=1e-4)
        assert float(row["true_probability"]) == pytest.approx(p[label], rel=1e-4)
    result = json.loads(Path(config.json).read_text())
    assert sum(int(row["correct"]) for row in rows) == result["top1_correct"]
    page = (target / "report.html").read_text(encoding="utf-8")
    assert f"{result['top1']:.2f} %" in page and f"{result['loss']:.4f}" in page
    weights = "/".join(Path(config.network.model).parts[-2:])
    for text in ("resnet20_cifar", weights, str(tmp_path.name), "fp32", "on cpu"):
        assert text in page
    assert str(tmp_path) not in page and str(folder.root) not in page
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"report: {target / 'report.html'}, and every image in predictions.csv"
    )
    assert sorted(p.name for p in target.iterdir()) == ["predictions.csv", "report.html"]


def test_a_report_of_two_processes_is_that_of_one(config, tmp_path):
    """Batches of one, since rounding may depend on a batch's size."""
    texts = []
    for processes in (1, 2):
        target = tmp_path / f"report{processes}"
        one = replace(config, batch_size=1, workers=1, report=str(target), tta=True, calibrate=True)
        assert run_test(replace(one, topology=Topology(ngpus=processes))) == 0
        assert len(rows_of(target)) == 15
        page = (target / "report.html").read_text(encoding="utf-8")
        assert "Flip TTA Acc@1" in page and "Temperature" in page
        # But for the number of processes, the time and the loss, a sum of float32 in some order.
        page = re.sub(r"processes: \d+|\d+-\d+-\d+ \d+:\d+|<strong>[\d.]+</strong>", "", page)
        texts.append((page, (target / "predictions.csv").read_bytes()))
    assert texts[0] == texts[1]


def test_the_other_ranks_write_no_report(tmp_path, monkeypatch):
    monkeypatch.setattr(tester, "rank", lambda: 1)
    tester._report(tmp_path, tester.Console(False), None)
    assert list(tmp_path.iterdir()) == []


def test_a_class_map_gives_the_names_of_a_report(config, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"blue": 2, "green": 0, "red": 1}))
    one = replace(config, class_map=str(path), report=str(tmp_path / "report"))
    assert run_test(one) == 0
    labels = [(row["true_class"], row["true_index"]) for row in rows_of(tmp_path / "report")]
    expected = [("class_2", "2")] * 5 + [("class_0", "0")] * 5 + [("class_1", "1")] * 5
    assert labels == expected


def test_a_folder_for_a_report_that_cannot_be(config, tmp_path):
    """Which is told before the data set, or anything else, is looked at."""
    (tmp_path / "file").write_text("")
    for name, message in (("file", "is a file"), ("file/report", "cannot be made: Not a dir")):
        with pytest.raises(UsageError, match=f"--report {tmp_path / name}: {message}"):
            run_test(replace(config, data="nowhere", report=str(tmp_path / name)))


@pytest.mark.parametrize("flag", ["json", "report"])
def test_nothing_is_written_into_the_data(config, flag):
    inside = Path(config.data) / "val" / "told"
    with pytest.raises(UsageError, match=f"--{flag} .*told: lies in the data set"):
        run_test(replace(config, **{flag: str(inside)}))
    assert not inside.exists()
