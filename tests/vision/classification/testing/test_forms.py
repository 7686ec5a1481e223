"""test.py counts the same images, and finds as many of them right, in every form of a data set."""

import json
from pathlib import Path

import numpy as np
import pytest
from megengine.hub.hub import _get_megengine_home
from safetensors.numpy import save_file

from official.vision.classification.zoo import get_model
from tests.scripts import load_script
from tests.vision.classification.data.sources.forms import CLASSES, FORMS, LABELS, tree
from tests.vision.classification.resnet.reference import randomise_statistics

RGB = {"order": "BGR", "mean": [110, 120, 130], "std": [60, 50, 70]}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a network that tells the three classes apart, though not well."""
    model = randomise_statistics(get_model("resnet20_cifar", num_classes=3))
    tensors = {name: np.ascontiguousarray(value) for name, value in model.state_dict().items()}
    preprocess = {**RGB, "resize": None, "crop": 20}
    description = {"arch": "resnet20_cifar", "classes": CLASSES, "preprocess": preprocess}
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(tensors, str(path), metadata={"resnet": json.dumps(description)})
    return path


def counted(path, weights, folder):
    out = folder / "result.json"
    flags = ["--data", path, "--model", weights, "--device", "cpu", "--json", out, "-j", "1"]
    assert load_script("test.py").main(list(map(str, flags))) == 0
    return json.loads(out.read_text("utf-8"))


@pytest.fixture(scope="module")
def expected(weights, tmp_path_factory):
    """Of image folders."""
    root = tmp_path_factory.mktemp("folders")
    tree(root / "data")
    return counted(root / "data", weights, root)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_counts_of_folders(form, weights, expected, tmp_path, monkeypatch):
    kernels = Path(_get_megengine_home()) / "resnet_ops"  # which need not be compiled once more
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "resnet_ops").symlink_to(kernels)
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    found = counted(FORMS[form](tmp_path / "data"), weights, tmp_path)
    assert found.pop("loss") == pytest.approx(expected["loss"], rel=1e-5)
    assert found == {key: value for key, value in expected.items() if key != "loss"}


def test_what_is_counted(expected):
    """Seven images, some right and some wrong, or the forms could not be told apart."""
    assert expected["total"] == len(LABELS["val"]) == 7
    assert 0 < expected["top1_correct"] < 7
