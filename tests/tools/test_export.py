"""Exporting as a user does, and what is refused."""

import importlib.util
import json
import re

import cv2
import megengine as mge
import megenginelite
import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import save_file

from official.vision.classification.engine.evaluation import Result
from official.vision.classification.errors import UsageError, UserError
from official.vision.classification.export import export as module
from official.vision.classification.export.export import ExportConfig, export
from official.vision.classification.zoo import get_model
from official.vision.classification.zoo.trained import (
    NetworkConfig,
    open_network,
    untrained_network,
)
from tests import documents
from tests.conftest import CLASSES, ROOT
from tests.vision.classification.resnet.reference import randomise_statistics, relative_difference

SMALL = "resnet20_cifar"
HOW = {"order": "RGB", "mean": [10, 20, 30], "std": [50, 60, 70], "resize": 20, "crop": 16}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file that tells everything of its network."""
    mge.random.seed(0)
    model = randomise_statistics(get_model(SMALL, num_classes=3))
    tensors = {name: np.ascontiguousarray(value) for name, value in model.state_dict().items()}
    description = {"arch": SMALL, "classes": CLASSES, "preprocess": HOW}
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(tensors, str(path), metadata={"resnet": json.dumps(description)})
    return path


def logits_of(path, images):
    """As a stranger to the project runs the file."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["logits"], {"images": images})[0]
    network = megenginelite.LiteNetwork()
    network.load(str(path))
    network.get_io_tensor("images").set_data_by_copy(images)
    network.forward()
    network.wait()
    return network.get_io_tensor("logits").to_numpy()


def about(path):
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return json.loads(session.get_modelmeta().custom_metadata_map["resnet"])
    return json.loads(path.with_name(path.name + ".json").read_text("utf-8"))


@pytest.mark.parametrize("suffix", [".onnx", ".mge"])
def test_a_file_gives_the_networks_logits_and_tells_how_to_use_it(
    weights, script, tmp_path, suffix
):
    out = tmp_path / f"small{suffix}"
    done = script("tools/export.py", "--model", weights, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"network: {SMALL}, 269,267 parameters, 3 classes"
    assert lines[1].startswith("input: (N, 3, 16, 16) float32, RGB")
    runtime = "onnxruntime 1" if suffix == ".onnx" else "MegEngine Lite 1"
    assert lines[2].startswith(f"checked: {runtime}")
    assert re.search(r"differ from the network's by \de-0[6-9]|\d\.\de-0[6-9]", lines[2])
    assert lines[-1].startswith(f"written: {out}, 1.1 MB, sha256 ")
    beside = {"small.mge.json"} if suffix == ".mge" else set()
    assert {path.name for path in tmp_path.iterdir()} == {out.name, *beside}

    images = np.random.default_rng(0).normal(size=(3, 3, 16, 16)).astype(np.float32)
    expected = open_network(NetworkConfig(model=str(weights))).model(mge.Tensor(images)).numpy()
    assert relative_difference(logits_of(out, images), expected) < 1e-5
    told = about(out)
    assert (told["arch"], told["precision"]) == (SMALL, "fp32")
    assert told["classes"] == told["names"] == list(CLASSES)
    assert {name: told["preprocess"][name] for name in HOW} == HOW


def test_int8_tells_the_accuracy_of_both(weights, script, tiny_images, tmp_path):
    out = tmp_path / "small.onnx"
    done = script(
        *("tools/export.py", "--model", weights, "--out", out, "--int8", "--data", tiny_images),
        *("--calibration-images", 20),
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert f"int8: calibrated on 20 images of {tiny_images / 'train'}" in lines
    (before,) = re.findall(r"^fp32: .* \((\d+) and 15 of 15\)$", done.stdout, re.MULTILINE)
    ((after, change),) = re.findall(
        r"^int8: .* \((\d+) and 15 of 15\); Acc@1 ([+-]\d+\.\d{3}), Acc@5 \+0\.000$",
        done.stdout,
        re.MULTILINE,
    )
    assert float(change) == pytest.approx((int(after) - int(before)) / 15 * 100, abs=5e-4)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert about(out)["precision"] == "int8"

    network, right = open_network(NetworkConfig(model=str(weights))), [0, 0]
    for label, name in enumerate(CLASSES):
        for path in (tiny_images / "val" / name).iterdir():
            image = cv2.imread(str(path))[2:18, 2:18, ::-1]  # 20 pixels need no resizing
            pixels = (image - np.array(HOW["mean"])) / np.array(HOW["std"])
            images = pixels.transpose(2, 0, 1)[None].astype(np.float32)
            right[0] += network.model(mge.Tensor(images)).numpy().argmax() == label
            right[1] += logits_of(out, images).argmax() == label
    assert right == [int(before), int(after)]


def test_the_accuracies_are_those_of_the_two_files(
    weights, tiny_images, monkeypatch, tmp_path, capsys
):
    images = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    seen = []

    def watched(source, folder, runners, progress):
        seen.extend(run(images) for run in runners)
        return [Result(9, 15, 15, 0.5), Result(6, 14, 15, 0.7)]

    monkeypatch.setattr(module, "accuracy", watched)
    network, out = NetworkConfig(model=str(weights)), tmp_path / "small.onnx"
    export(ExportConfig(network, str(out), int8=True, data=str(tiny_images)))
    expected = open_network(network).model(mge.Tensor(images)).numpy()
    assert relative_difference(seen[0], expected) < 1e-5
    assert np.array_equal(seen[1], logits_of(out, images))
    assert relative_difference(seen[1], expected) > 1e-4
    assert "(6 and 14 of 15); Acc@1 -20.000, Acc@5 -6.667\n" in capsys.readouterr().out


def test_untrained_networks(tmp_path):
    config = NetworkConfig("resnet18_cifar", num_classes=7, preprocess={"resize": 24, "crop": 24})
    assert export(ExportConfig(config, str(tmp_path / "a.onnx"), random_weights=True)) == 0
    told = about(tmp_path / "a.onnx")
    assert told["input"]["shape"] == ["N", 3, 24, 24]
    assert told["output"]["shape"] == ["N", 7]
    assert told["classes"] is None
    assert told["names"][6] == "class_6"


@pytest.mark.parametrize(
    ("arch", "size", "count"),
    [("resnet50", 224, 1000), ("wide_resnet50_2", 224, 1000), ("resnet20_cifar", 32, 10)],
)
def test_an_untrained_network_has_its_usual_form(arch, size, count):
    network = untrained_network(NetworkConfig(arch))
    assert (network.preprocess.crop, network.num_classes) == (size, count)
    assert not network.model.training


def refused(error, out, **options):
    """The message, for a network that would cost nothing."""
    network = options.pop("network", NetworkConfig(SMALL))
    with pytest.raises(error) as caught:
        export(ExportConfig(network, str(out), **{"random_weights": True, **options}))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_exported(weights, tiny_images, tmp_path):
    out = tmp_path / "out.onnx"
    assert "must end in .onnx or .mge" in refused(UsageError, tmp_path / "out.pt")
    assert "--int8 needs a name that ends in .onnx" in refused(
        UsageError, tmp_path / "out.mge", int8=True, data=str(tiny_images)
    )
    assert "there is no folder" in refused(UsageError, tmp_path / "gone" / "out.onnx")
    both = NetworkConfig(SMALL, str(weights))
    assert "--random-weights and --model exclude" in refused(UsageError, out, network=both)
    wrong = NetworkConfig("resnet20_cifr")
    assert "did you mean" in refused(UsageError, out, network=wrong)
    assert "nowhere: no such folder" in refused(UserError, out, int8=True, data="nowhere")
    (tmp_path / "val").mkdir()
    assert "train: no such folder" in refused(UserError, out, int8=True, data=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["val"]


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_way_to_it(package, monkeypatch, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else found(name)
    )
    line = refused(UsageError, tmp_path / "out.onnx")
    assert f"needs the package {package}; pip install -r requirements-export.txt" in line
    assert export(ExportConfig(NetworkConfig(SMALL), str(tmp_path / "a.mge"), True)) == 0


@pytest.mark.parametrize("suffix", [".onnx", ".mge"])
def test_a_file_that_gives_other_logits_is_not_kept(suffix, monkeypatch, tmp_path):
    """Here because an operation of the export is wrong."""
    from official.vision.classification.ops.folding import FoldingOps

    monkeypatch.setattr(FoldingOps, "add", lambda self, x, shortcut, relu=False: self.relu(x))
    out = tmp_path / f"out{suffix}"
    out.write_text("what was there")
    line = refused(UserError, out)
    assert line.startswith(f"{out}: not written: its logits differ from the network's by ")
    assert out.read_text() == "what was there"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_the_two_lists_of_requirements_agree():
    def pins(name):
        lines = (ROOT / name).read_text("utf-8").splitlines()
        return {line.split("#")[0].strip() for line in lines} - {""}

    assert pins("requirements-export.txt") <= pins("requirements-dev.txt")
    assert {line.split("==")[0] for line in pins("requirements-export.txt")} == {
        "onnx",
        "onnxruntime",
    }


def test_the_example_of_the_documentation_gives_the_projects_logits(weights, tmp_path, monkeypatch):
    """A picture of odd size, through the documented lines and through the project."""
    from official.vision.classification.data.image import read_image
    from official.vision.classification.data.normalize import Normalize
    from official.vision.classification.data.transforms import EvalTransform, to_network_layout

    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (57, 43, 3), np.uint8)
    cv2.imwrite("cat.jpg", cv2.GaussianBlur(picture, (0, 0), 3))
    for name in ("resnet18.onnx", "resnet18.mge"):
        export(ExportConfig(NetworkConfig(model=str(weights)), name))
    network = open_network(NetworkConfig(model=str(weights)))
    image = EvalTransform(network.preprocess)(read_image("cat.jpg"))
    pixels = to_network_layout(image, network.preprocess.order)[None]
    expected = network.model(Normalize(network.preprocess)(pixels)).numpy()
    examples = [block for block in documents.blocks("docs/export.md") if block.language == "python"]
    assert len(examples) == 2
    names = {}
    for block in examples:
        exec(compile(block.text, "docs/export.md", "exec"), names)
        assert relative_difference(names.pop("logits"), expected) < 1e-4
