import csv
import errno
import itertools
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.image import read_image
from official.vision.classification.data.normalize import Normalize
from official.vision.classification.data.transforms import EvalTransform
from official.vision.classification.engine.scoring import ClassScore, Scorer
from official.vision.classification.errors import (
    DataError,
    TrainingError,
    UsageError,
    UserError,
)
from official.vision.classification.prediction.inference import inference_model
from official.vision.classification.prediction.outputs import describe
from official.vision.classification.prediction.predictor import PredictConfig, predict
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.zoo.trained import NetworkConfig, open_network

SIXTEEN = {"resize": 16, "crop": 16}
FILES = ("csv", "jsonl", "features", "save_image", "saliency")


def test_lines_are_the_seeds():
    lines = [
        describe(0, ClassScore(287, "lynx", 0.25249)),
        describe(3, ClassScore(283, "Persian_cat", 0.083)),
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
    return PredictConfig((image,), network, device="cpu")


def test_json_says_what_the_lines_say(config, capsys):
    predict(config)
    lines = capsys.readouterr().out.splitlines()
    predict(replace(config, json=True))
    (text,) = capsys.readouterr().out.splitlines()
    answer = json.loads(text)
    assert answer["image"] == config.images[0]
    assert lines == [describe(i, ClassScore(**guess)) for i, guess in enumerate(answer["top"])]
    assert sum(guess["probability"] for guess in answer["top"]) == pytest.approx(1)


def test_top_k_and_what_inference_model_says(config, trained, capsys):
    predict(replace(config, json=True, top_k=2))
    answer = json.loads(capsys.readouterr().out)
    model = resnet20_cifar(num_classes=3, pretrained=trained)
    own = model.pretrained_config
    model.pretrained_config = replace(own, preprocess=own.preprocess.override(SIXTEEN))
    told = inference_model(model, config.images[0], top_k=2)["top_k"]
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
        f"{config.images[0]}: an image of 20x20 pixels is too small for a crop of 64"
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_the_picture_is_saved_with_the_classes_below(config, tmp_path, suffix):
    path = tmp_path / f"answer{suffix}"
    predict(replace(config, save_image=str(path)))
    assert cv2.imread(str(path)).shape == (480 + 3 * 32 + 2 * 8, 480, 3)


def test_a_picture_that_cannot_be_saved(config, tmp_path):
    """It is told at once, before a picture or weights are looked for."""
    (tmp_path / "folder.png").mkdir()
    nothing = replace(config, images=("no.jpg",), network=NetworkConfig(model="no.pkl"))
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


def test_a_picture_that_would_be_overwritten(config):
    for flag in FILES:
        with pytest.raises(UsageError, match="is one of the images to be named"):
            predict(replace(config, **{flag: config.images[0]}))


@pytest.mark.parametrize(("first", "second"), itertools.combinations(FILES, 2))
def test_two_answers_in_one_file_are_refused(config, tmp_path, first, second):
    (tmp_path / "link").symlink_to(tmp_path)
    changes = {first: str(tmp_path / "a.png"), second: str(tmp_path / "link" / "a.png")}
    flags = [f"--{name.replace('_', '-')}" for name in (first, second)]
    with pytest.raises(UsageError, match=f"^{flags[1]} .*: is {flags[0]}'s too") as caught:
        predict(replace(config, **changes))
    assert str(tmp_path / "link" / "a.png") in str(caught.value)


@pytest.mark.parametrize("flag", ["csv", "jsonl", "features"])
def test_files_that_cannot_be_made(config, tmp_path, flag):
    """Told before a picture or weights are looked for."""
    nothing = replace(config, images=("no.jpg",), network=NetworkConfig(model="no.pkl"))
    for path, message in ((tmp_path / "no" / "a", "there is no folder"), (tmp_path, "is a folder")):
        with pytest.raises(UsageError, match=f"--{flag} {path}: {message}"):
            predict(replace(nothing, **{flag: str(path)}))


def test_a_missing_picture_is_told_before_the_weights_are_read(config):
    with pytest.raises(DataError, match="no.jpg: no such image"):
        predict(replace(config, images=("no.jpg",), network=NetworkConfig(model="no.pkl")))


@pytest.fixture()
def several(config, tiny_images, tmp_path):
    """Five red pictures in a folder with one that is cut short, and a blue one by name."""
    folder = tmp_path / "photos"
    shutil.copytree(tiny_images / "val" / "red", folder)
    (folder / "2b.png").write_bytes((folder / "2.png").read_bytes()[:-20])
    return replace(config, images=(str(folder), str(tiny_images / "val" / "blue" / "1.png")))


def readable(config):
    """The paths of its pictures."""
    folder, file = config.images
    return [f"{folder}/{number}.png" for number in range(5)] + [file]


def alone(config, path, capsys):
    """What is told of one picture, as lines and as JSON."""
    predict(replace(config, images=(path,)))
    lines = capsys.readouterr().out.splitlines()
    predict(replace(config, images=(path,), json=True))
    return lines, json.loads(capsys.readouterr().out)


def close_to(answer):
    """The same guesses; probabilities may depend on the size of a batch in their last digits."""
    answer = json.loads(json.dumps(answer))
    for guess in (*answer["top"], *answer.get("tta", ())):
        guess["probability"] = pytest.approx(guess["probability"], rel=1e-5)
    return answer


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_several_pictures_are_told_one_after_another(several, batch_size, capsys, caplog):
    several = replace(several, batch_size=batch_size)
    assert predict(several) == 1
    lines = capsys.readouterr().out.splitlines()
    assert predict(replace(several, json=True)) == 1
    answers = json.loads(capsys.readouterr().out)
    for path in readable(several):
        own_lines, own_answer = alone(several, path, capsys)
        assert answers.pop(0) == close_to(own_answer)
        assert [lines.pop(0) for _ in range(4)] == [f"{path}:", *own_lines]
    assert not lines and not answers
    broken = several.images[0] + "/2b.png"
    messages = [record.getMessage() for record in caplog.records if "tell how" not in record.msg]
    assert messages == 2 * [
        f"{broken}: the image is cut short; fetch the file again",
        "1 of 7 images could not be used; they are left out",
    ]


def test_all_that_can_be_used_is_0(several, capsys):
    paths = readable(several)
    assert predict(replace(several, images=paths[:2])) == 0
    assert capsys.readouterr().out.count("\n") == 8


def test_one_in_a_folder_is_a_list_of_one(config, tmp_path, capsys):
    (tmp_path / "one").mkdir()
    path = tmp_path / "one" / "a.png"
    shutil.copy(config.images[0], path)
    _, own = alone(config, str(path), capsys)
    assert predict(replace(config, images=(str(tmp_path / "one"),), json=True)) == 0
    assert json.loads(capsys.readouterr().out) == [close_to(own)]


def test_none_that_can_be_used_is_an_empty_list(several, tmp_path, capsys):
    broken = several.images[0] + "/2b.png"
    images, path = (broken, broken), tmp_path / "out.npz"
    assert predict(replace(several, images=images, json=True, features=str(path))) == 1
    assert json.loads(capsys.readouterr().out) == []
    assert np.load(path)["features"].shape == (0, 0)


def test_rows_say_what_the_console_says(several, tmp_path, capsys):
    predict(replace(several, json=True, tta=True, top_k=2))
    answers = json.loads(capsys.readouterr().out)
    files = {"csv": str(tmp_path / "out.csv"), "jsonl": str(tmp_path / "out.jsonl")}
    assert predict(replace(several, tta=True, top_k=2, batch_size=2, print_freq=2, **files)) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[-2:] == [f"predictions: {path}" for path in files.values()]
    assert out[:-2] == ["Predict 2/7", "Predict 7/7"]  # of batches 0 and 2, and those skipped
    lines = [json.loads(line) for line in Path(files["jsonl"]).read_text().splitlines()]
    assert lines == [close_to(answer) for answer in answers]
    with Path(files["csv"]).open(newline="") as file:
        for row, line in zip(csv.reader(file), [None, *lines]):
            if line:
                guesses = [*line["top"], *line["tta"]]
                values = [[g["name"], str(g["index"]), str(g["probability"])] for g in guesses]
                assert row == [line["image"], *itertools.chain(*values)]
    predict(replace(several, json=True, **files))
    json.loads(capsys.readouterr().out)  # and nothing else


def test_fewer_classes_than_are_asked_for(several, tmp_path):
    path = tmp_path / "out.csv"
    predict(replace(several, top_k=5, csv=str(path)))
    with path.open(newline="") as file:
        assert {len(row) for row in csv.reader(file)} == {1 + 3 * 3}


def test_mirrored_pictures_are_told_apart(config, tmp_path, capsys):
    """Against asking about a mirrored file by itself."""
    image = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    image[:, :9] //= 3
    files = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    cv2.imwrite(files[0], image)
    cv2.imwrite(files[1], cv2.flip(image, 1))
    (_, first), (_, second) = (alone(config, path, capsys) for path in files)
    predict(replace(config, images=(files[0],), tta=True, json=True))
    answer = json.loads(capsys.readouterr().out)
    assert answer["top"] == close_to(first)["top"]
    shares = {g["index"]: g["probability"] / 2 for g in first["top"]}
    for guess in second["top"]:
        shares[guess["index"]] += guess["probability"] / 2
    told = {guess["index"]: guess["probability"] for guess in answer["tta"]}
    assert told == pytest.approx(shares, rel=1e-5)
    assert told != pytest.approx({g["index"]: g["probability"] for g in first["top"]}, rel=1e-3)
    assert list(told.values()) == sorted(told.values(), reverse=True)
    predict(replace(config, images=(files[0],), tta=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[3] == "mean with the mirrored image:"
    assert lines[4:] == [describe(i, ClassScore(**guess)) for i, guess in enumerate(answer["tta"])]


def test_features_need_no_classifier(several, trained, tmp_path, capsys, caplog):
    """Only where nothing else is asked for."""
    body = {name: value for name, value in mge.load(trained).items() if not name.startswith("fc.")}
    headless = tmp_path / "backbone.pkl"
    mge.save({f"encoder.{name}": value for name, value in body.items()}, str(headless))
    whole, found = tmp_path / "whole.npz", tmp_path / "found.npz"
    predict(replace(several, features=str(whole), batch_size=4))
    config = replace(several, network=replace(several.network, model=str(headless)), batch_size=4)
    capsys.readouterr()
    predict(replace(config, features=str(found)))
    assert np.array_equal(np.load(found)["features"], np.load(whole)["features"])
    assert capsys.readouterr().out.splitlines()[-1] == f"features: {found}"
    assert "probability" not in capsys.readouterr().out
    assert f"{headless}: has no classifier; its features need none" in caplog.text
    for more in ({}, {"features": str(found), "json": True}, {"csv": str(tmp_path / "x.csv")}):
        with pytest.raises(UserError, match="has no classifier.*, which is needed here"):
            predict(replace(config, **more))


def test_features_are_what_extract_feat_gives(several, tmp_path, capsys):
    path = tmp_path / "out.npz"
    predict(replace(several, features=str(path), batch_size=4, json=True))
    answers = json.loads(capsys.readouterr().out)
    network = open_network(several.network)
    with np.load(path) as found:
        assert found["images"].tolist() == readable(several)
        features = found["features"]
    for file, feature, answer in zip(readable(several), features, answers):
        pixels = EvalTransform(network.preprocess)(read_image(file)).transpose(2, 0, 1)[None]
        x = Normalize(network.preprocess)(np.ascontiguousarray(pixels))
        (expected,) = network.model.extract_feat(x)
        assert np.allclose(feature, expected.numpy()[0], rtol=1e-4, atol=1e-6)
        logits = network.model(x).numpy()[0].astype(float)
        shares = np.exp(logits) / np.exp(logits).sum()
        assert answer["top"][0]["probability"] == pytest.approx(shares.max(), rel=1e-4)


def test_pictures_of_several(several, tmp_path, capsys):
    """They are those that are made of each alone."""
    places = {name: str(tmp_path / name) for name in ("save_image", "saliency")}
    assert predict(replace(several, **places)) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"pictures: {places['save_image']}",
        f"heat maps: {places['saliency']}",
    ]
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "1-2.png"]
    for name, path in zip(names, readable(several)):
        own = {key: str(tmp_path / f"{key}.png") for key in places}
        assert predict(replace(several, images=(path,), **own)) == 0
        for key in places:
            found, expected = cv2.imread(f"{places[key]}/{name}"), cv2.imread(own[key])
            assert np.abs(found.astype(int) - expected).max() <= 3
    assert sorted(path.name for path in (tmp_path / "saliency").iterdir()) == sorted(names)


def test_the_heat_maps_are_those_of_the_likeliest_classes(config, tmp_path, capsys):
    """Equations 1 and 2 of Grad-CAM in float64, drawn with OpenCV by hand."""
    image = np.random.default_rng(5).integers(0, 256, (32, 48, 3), np.uint8)
    image[10:20, 20:30] //= 4
    file, target = str(tmp_path / "a.png"), str(tmp_path / "heat.png")
    cv2.imwrite(file, image)
    network = replace(config.network, preprocess={"resize": None, "crop": 32})
    predict(replace(config, images=(file,), network=network, saliency=target, json=True))
    top = json.loads(capsys.readouterr().out)["top"][:2]

    opened = open_network(network)
    seen = image[:, 8:40].transpose(2, 0, 1)[None]
    if opened.preprocess.order == "RGB":
        seen = seen[:, ::-1]
    x = Normalize(opened.preprocess)(np.ascontiguousarray(seen))
    maps = opened.model.extract_features(x)["res4"].numpy()[0].astype(float)
    large = image.repeat(10, 0).repeat(10, 1)
    found = cv2.imread(target)
    assert found.shape == (320 + 48, 3 * 480 + 2 * 6, 3)
    assert np.array_equal(found[:320, :480], large)
    for place, score in enumerate(top, 1):
        weights = opened.model.fc.weight.numpy()[score["index"]].astype(float)
        heat = np.maximum((weights[:, None, None] * maps).sum(0), 0)
        heat = cv2.resize(heat / heat.max(), (320, 320), interpolation=cv2.INTER_CUBIC)
        heat = heat.clip(0, 1)[..., None]
        colours = (1 - heat) * (0, 225, 255) + heat * (40, 0, 205)
        expected = large / 2.0
        part = large[:, 80:400].astype(float)
        expected[:, 80:400] = (1 - 0.8 * heat) * part + 0.8 * heat * colours
        panel = found[:, 486 * place : 486 * place + 480]
        assert np.abs(panel[:320] - expected).mean() < 1
        bar = (panel[320 + 8 + 3] == (240, 205, 160)).all(1).sum()
        assert abs(bar - (480 - 16 - 82) * score["probability"]) <= 1.5


def test_an_end_before_the_last_picture(several, tmp_path, monkeypatch, caplog, capsys):
    """By Ctrl-C, say: the file of that name is not there, and the rows so far are."""
    many = replace(several, images=(several.images[0],), batch_size=1, jsonl=str(tmp_path / "out"))
    score = Scorer.__call__
    calls = []

    def interrupted(self, images):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, images)

    monkeypatch.setattr(Scorer, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(many)
    assert not (tmp_path / "out").exists()
    assert len((tmp_path / "out.part").read_text().splitlines()) == 2
    assert "the rows so far are in" in caplog.text


def test_weights_that_are_unusable_end_it(config, trained, tmp_path):
    state = mge.load(trained)
    state["fc.weight"] = np.full_like(state["fc.weight"], 3e38)  # finite, but not twice it
    mge.save(state, trained)
    paths = {name: str(tmp_path / f"{name}.png") for name in FILES}
    with pytest.raises(TrainingError, match="outputs are not finite"):
        predict(replace(config, **paths))
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pkl"]


def test_names_cannot_steer_the_terminal(config, tmp_path, capsys):
    nasty = tmp_path / "\033[2Jred.png"
    shutil.copy(config.images[0], nasty)
    predict(replace(config, images=(str(nasty), str(nasty))))
    out = capsys.readouterr().out
    assert "\033" not in out and r"\x1b[2Jred.png:" in out
