"""The converter as a user runs it, on PyTorch and MindSpore files put together by hand."""

import json

import megengine
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save, save_file

from official.vision.classification.errors import UsageError, WeightsError
from official.vision.classification.export.elsewhere import renamed
from official.vision.classification.ops.build import processor_flags
from official.vision.classification.zoo import get_model
from official.vision.classification.zoo.names import translate
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.trained import NetworkConfig, look_up, open_network
from official.vision.classification.zoo.weights import load_weights
from tests.oracles import fixtures, seeded
from tests.vision.classification.readers import handmade

ROW = "resnet18_8xb16_cifar10"


@pytest.fixture(scope="module")
def state():
    """Tensors of resnet18_cifar in which no two are alike."""
    random = np.random.default_rng(3)
    return {
        name: random.uniform(0.5, 1.5, value.shape).astype(np.float32)
        for name, value in get_model("resnet18_cifar").state_dict().items()
    }


@pytest.fixture(scope="module")
def mmpretrain(state, tmp_path_factory):
    """The same under MMPreTrain's names, with a counter beside each normalisation."""
    tensors = {}
    for name, value in state.items():
        tensors[f"head.{name}" if name.startswith("fc.") else f"backbone.{name}"] = value
        if name.endswith("running_var"):
            counter = f"backbone.{name[: -len('running_var')]}num_batches_tracked"
            tensors[counter] = np.array(7, np.int64)
    path = tmp_path_factory.mktemp("weights") / "resnet18_b16x8_cifar10.pth"
    path.write_bytes(torch_file(tensors))
    return path


def torch_file(tensors):
    kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
    entries, storages = {}, {}
    for key, (name, value) in enumerate(tensors.items()):
        where = handmade.storage(str(key), value.size, kinds[value.dtype.name])
        strides = [step // value.itemsize for step in value.strides]
        entries[name] = handmade.tensor(where, value.shape, strides)
        storages[str(key)] = value.tobytes()
    return handmade.torch_zip(handmade.pickled(entries), storages)


def same(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in expected
    )


def test_a_published_row_becomes_a_file_that_tells_everything(mmpretrain, state, script, tmp_path):
    out = tmp_path / "r18.safetensors"
    done = script(
        "tools/convert_weights.py", mmpretrain, "--arch", ROW, "--out", out, "--verify", "--names"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"torch-zip, names of mmpretrain, {len(state) + 20} tensors")
    assert lines[1] == "network: resnet18_cifar, 11,173,962 parameters, 10 classes"
    assert lines[2] == f"mapped: {len(state)} tensors, {len(state)} renamed, 0 reshaped"
    assert "left out: 20 that are no weights (backbone.bn1.num_batches_tracked)" in lines[3]
    assert lines[-1] == f"verified: {len(state)} tensors are equal"
    mapping = [line.split() for line in lines if "->" in line]
    assert ["head.fc.bias", "->", "fc.bias", "(10,)"] in mapping
    assert len(mapping) == len(state)

    with safe_open(str(out), "np") as file:  # the library itself, not our reader
        names = list(file.keys())
        assert same({name: file.get_tensor(name) for name in names}, state)
        description = json.loads(file.metadata()["resnet"])
    assert description["classes"][:2] == ["airplane", "automobile"]
    network = open_network(NetworkConfig(model=str(out)))  # no other flag
    assert (network.arch, network.preprocess) == ("resnet18_cifar", BY_NAME[ROW].preprocess)
    assert network.names[8] == "ship"


def test_what_int8_needs_goes_along(script, tiny_images, tmp_path):
    """Images are wanted once: the file answers as with them, also after another conversion."""
    if "avx512_vnni" not in processor_flags():
        pytest.skip("no 8-bit instructions")
    plain, ready, again = (tmp_path / f"{name}.safetensors" for name in ("plain", "ready", "again"))
    folder = ("--calibration", tiny_images / "train")
    convert, row = "tools/convert_weights.py", (plain, "--arch", "resnet20_cifar")
    network = get_model("resnet20_cifar")
    save_file({k: np.ascontiguousarray(v) for k, v in network.state_dict().items()}, str(plain))
    done = script(convert, *row, *folder, "--out", ready, "--verify")
    assert done.returncode == 0, done.stderr
    said = f"convert_weights.py: int8: calibrated on 24 images of {tiny_images / 'train'}\n"
    assert said in done.stderr
    assert script(convert, ready, "--out", again).returncode == 0
    image = ("--image", tiny_images / "val" / "red" / "0.png", "--precision", "int8", "--json")
    by_images = script("inference.py", "--model", plain, "--arch", row[2], *image, *folder)
    for file in (ready, again):
        stated = script("inference.py", "--model", file, *image)
        assert "int8: calibrated as the weights' file states" in stated.stderr
        assert scores(stated) == scores(by_images)
    other = script("inference.py", "--model", ready, *image, "--calibration", tiny_images / "val")
    assert "calibrated on 15 images of" in other.stderr and scores(other) != scores(by_images)
    refused = script(convert, *row, *folder, "--out", tmp_path / "r18.pkl")
    assert refused.returncode == 2 and "for .safetensors" in refused.stderr
    network.fc.weight[:] = 1e38
    save_file({k: np.ascontiguousarray(v) for k, v in network.state_dict().items()}, str(plain))
    refused = script(convert, *row, *folder, "--out", tmp_path / "other.safetensors")
    assert refused.returncode == 2 and "values that bytes cannot stand for" in refused.stderr
    assert not (tmp_path / "other.safetensors").exists()


def scores(done):
    return json.loads(done.stdout)["top"]


NOT_COMMERCIAL = "resnet18.fb_swsl_ig1b_ft_in1k"


@pytest.fixture(scope="module")
def not_commercial(script, tmp_path_factory):
    """What becomes of a file of a row that must not be used commercially, and what is said."""
    folder = tmp_path_factory.mktemp("licence")
    state = get_model("resnet18").state_dict()
    tensors = {name: np.ascontiguousarray(value) for name, value in state.items()}
    save_file(tensors, str(folder / "plain.safetensors"))
    flags = (folder / "plain.safetensors", "--arch", NOT_COMMERCIAL, "--half")
    done = script("tools/convert_weights.py", *flags, "--out", folder / "kept.safetensors")
    assert done.returncode == 0
    return folder / "kept.safetensors", done


def test_a_licence_goes_along(not_commercial, script, caplog, tmp_path):
    path, done = not_commercial
    notice = "the licence of these weights, CC-BY-NC-4.0, forbids commercial use"
    assert done.stderr.count(notice) == 1 and f"{NOT_COMMERCIAL}: {notice}" in done.stderr
    assert "licence: CC-BY-NC-4.0" in done.stdout.splitlines()
    with safe_open(str(path), "np") as file:
        assert json.loads(file.metadata()["resnet"])["licence"] == "CC-BY-NC-4.0"
    assert look_up(NetworkConfig(model=str(path))).config.licence == "CC-BY-NC-4.0"
    assert f"{path}: {notice}" in caplog.text
    for out in ("again.safetensors", "x.pkl"):
        done = script("tools/convert_weights.py", path, "--out", tmp_path / out)
        assert done.returncode == 0 and done.stderr.count(notice) == 1
        assert ("not that licence" in done.stderr) == (out == "x.pkl")
    assert load_weights(tmp_path / "again.safetensors").licence == "CC-BY-NC-4.0"
    done = script("tools/export.py", "--model", path, "--out", tmp_path / "x.mge")
    assert done.returncode == 0 and done.stderr.count(notice) == 1
    assert "licence of the weights: CC-BY-NC-4.0" in done.stdout.splitlines()
    about = json.loads((tmp_path / "x.mge.json").read_text("utf-8"))
    assert about["licence"] == "CC-BY-NC-4.0"


@pytest.mark.parametrize("licence", [7, ["MIT"], "x" * 81, "MIT\n\x1b[31m"])
def test_a_licence_that_is_none(licence, tmp_path):
    path = tmp_path / "w.safetensors"
    description = json.dumps({"arch": "resnet18", "licence": licence})
    save_file({"fc.bias": np.zeros(3, np.float32)}, str(path), metadata={"resnet": description})
    with pytest.raises(WeightsError, match="licence is no name of one"):
        load_weights(path)


def test_a_pkl_is_for_plain_megengine(mmpretrain, state, script, tmp_path):
    out = tmp_path / "r18.pkl"
    done = script("tools/convert_weights.py", mmpretrain, "--arch", ROW, "--out", out, "--verify")
    assert (done.returncode, done.stderr) == (0, "")
    found = megengine.load(str(out))
    assert same(found, state)
    model = get_model("resnet18_cifar")
    model.load_state_dict(found)
    assert np.array_equal(model.conv1.weight.numpy(), state["conv1.weight"])


def test_grouped_convolutions_get_megengines_shape(script, tmp_path):
    state = get_model("resnext50_32x4d", num_classes=2).state_dict()
    flat = {
        name: value.reshape(-1, *value.shape[2:]) if value.ndim == 5 else value
        for name, value in state.items()
    }
    source = tmp_path / "resnext.pth"
    source.write_bytes(torch_file(flat))
    out = tmp_path / "resnext.pkl"
    done = script(
        *("tools/convert_weights.py", source, "--arch", "resnext50_32x4d", "--out", out),
        *("--preprocess", "torchvision", "--verify"),
    )
    assert done.returncode == 0, done.stderr
    assert f"mapped: {len(state)} tensors, 0 renamed, 16 reshaped" in done.stdout
    assert same(megengine.load(str(out)), state)


def refused(script, *arguments):
    done = script("tools/convert_weights.py", *arguments)
    assert done.returncode in (1, 2) and not done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    return line


def test_what_cannot_be_converted(mmpretrain, script, tmp_path):
    out = tmp_path / "out.safetensors"
    assert "weights.txt" in refused(script, tmp_path / "weights.txt", "--out", out)
    assert "must end in .safetensors or .pkl" in refused(script, mmpretrain, "-o", tmp_path / "a")
    assert "is the source itself" in refused(
        script, mmpretrain.rename(tmp_path / "r.pkl"), "-o", tmp_path / "r.pkl"
    )
    source = (tmp_path / "r.pkl").rename(mmpretrain)
    line = refused(script, source, "--arch", "resnet34_cifar", "--out", out)
    assert "does not fit resnet34_cifar: lacks layer1.2.bn1.bias" in line
    assert "did you mean" in refused(script, source, "--arch", "resnet18_cifr", "--out", out)
    gone = tmp_path / "gone" / "out.pkl"
    assert f"--out {gone}: there is no folder" in refused(script, "missing.pth", "--out", gone)
    out.touch()
    assert "missing.pth: no such file" in refused(script, "missing.pth", "--out", out)
    out.unlink()
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_left_out_cannot_steer_the_terminal(state, script, tmp_path):
    source = tmp_path / "weights.pth"
    source.write_bytes(torch_file({**state, "\033[2J.num_batches_tracked": np.zeros(1, "f4")}))
    done = script(
        *("tools/convert_weights.py", source, "--arch", ROW, "--out", tmp_path / "out.pkl")
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert r"left out: 1 that are no weights (\x1b[2J.num_batches_tracked)" in done.stdout
    assert "\033" not in done.stdout


def test_a_wrong_copy_does_not_pass_the_verification(mmpretrain, monkeypatch, tmp_path):
    """The result is read again: what the disk has is what counts."""
    from official.vision.classification.errors import WeightsError
    from official.vision.classification.export import convert as module

    def write_damaged(path, data):
        path.write_bytes(data[:-4] + b"\0\0\0\0")

    monkeypatch.setattr(module, "write_atomically", write_damaged)
    network = NetworkConfig(ROW, str(mmpretrain))
    config = module.ConvertConfig(network, str(tmp_path / "out.safetensors"), verify=True)
    with pytest.raises(WeightsError, match="is not what the source has"):
        module.convert(config)


@pytest.fixture()
def checkpoint(tmp_path):
    """One of a run with ``ema``, whose averages are half of the weights."""
    from megengine.optimizer import SGD

    from official.vision.classification.training.checkpoint import (
        Progress,
        collect_tensors,
        save_checkpoint,
    )
    from official.vision.classification.training.ema import ExponentialAverage

    model = get_model("resnet20_cifar", num_classes=10)
    average = ExponentialAverage(model, 0.9)
    average.load({name: value / 2 for name, value in model.state_dict().items()})
    optimizer = SGD(list(model.parameters()), lr=0.1, momentum=0.9)
    classes = tuple(f"class {number}" for number in range(10))
    preprocess = BY_NAME[ROW].preprocess
    progress = Progress("resnet20_cifar", classes, preprocess, {}, seed=0, step=1, total_batch=2)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, collect_tensors(model, optimizer, average), progress)
    return path, model.state_dict()


def test_a_checkpoints_averages(checkpoint, script, tmp_path):
    path, state = checkpoint
    out = tmp_path / "average.safetensors"
    words = ("tools/convert_weights.py", path, "--verify", "--out", out)
    done = script(*words, "--average")
    assert (done.returncode, done.stderr) == (0, "")
    assert same(load_weights(out).tensors, {name: value / 2 for name, value in state.items()})
    done = script(*words)
    assert same(load_weights(out).tensors, state)
    line = refused(script, out, "--average", "--out", tmp_path / "again.safetensors")
    assert "average.safetensors: has no averaged weights" in line


def test_half_the_size(checkpoint, script, tmp_path):
    path, state = checkpoint
    out = tmp_path / "half.safetensors"
    words = ("tools/convert_weights.py", path, "--half", "--verify")
    done = script(*words, "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    found = load_weights(out)
    assert same(found.tensors, {name: value.astype("f2") for name, value in state.items()})
    assert out.stat().st_size < 0.55 * 4 * sum(value.size for value in state.values())
    network = open_network(NetworkConfig(model=str(out)))
    assert (network.arch, network.classes[3]) == ("resnet20_cifar", "class 3")
    filled = network.model.state_dict()
    assert same(filled, {name: value.astype("f4") for name, value in found.tensors.items()})
    assert "--half: for .safetensors" in refused(script, *words[1:], "--out", tmp_path / "w.pkl")


def test_what_float16_cannot_hold(state, script, tmp_path):
    source = tmp_path / "weights.pth"
    source.write_bytes(torch_file({**state, "bn1.bias": np.full(64, 65520, "f4")}))
    line = refused(script, source, "--arch", ROW, "--half", "--out", tmp_path / "out.safetensors")
    assert "weights.pth: bn1.bias has values too large for float16" in line


# For other projects. Names and shapes as their own modules have them: fixtures of theirs.

PROJECTS = {
    "torchvision": ("torchvision_resnext50_32x4d", "resnext50_32x4d", "torchvision"),
    "timm": ("timm_resnet50d", "resnetv1d50", "timm"),
    "timm v2": ("timm_resnetv2_50", "resnetv2_50_timm", "timm"),
    "timm v2 d": ("timm_resnetv2_18d", "resnetv2_18d", "timm"),
    "mmpretrain": ("mmpretrain_resnet50_8xb32_in1k", "resnet50", "mmpretrain"),
    "mmpretrain c": ("mmpretrain_resnetv1c50_8xb32_in1k", "resnetv1c50", "mmpretrain"),
    "mmpretrain d": ("mmpretrain_resnetv1d50_8xb32_in1k", "resnetv1d50", "mmpretrain"),
    "mmpretrain cifar": ("mmpretrain_resnet18_8xb16_cifar10", "resnet18_cifar", "mmpretrain"),
}


@pytest.mark.parametrize("case", PROJECTS)
def test_names_and_shapes_of_other_projects(case):
    fixture, arch, project = PROJECTS[case]
    expected = {
        name: tuple(shape)
        for name, shape in fixtures.load(fixture).shapes.items()
        if not name.endswith("num_batches_tracked")
    }
    num_classes = fixtures.load(fixture).num_classes
    ours = get_model(arch, num_classes=num_classes).state_dict()
    found = renamed(project, arch, ours)
    assert {name: value.shape for name, value in found.items()} == expected
    translation = translate(seeded.tensors(expected))  # each is at its own place
    back = translate(found)
    assert back.sources == translation.sources


@pytest.mark.parametrize(
    ("project", "arch", "way_out"),
    [
        ("torchvision", "resnetv1d50", "--to timm or mmpretrain has"),
        ("torchvision", "resnetv1a50", "--to mmpretrain has"),
        ("timm", "resnetv2_50", "none of --to's projects has"),
        ("timm", "resnet20_cifar", "none of --to's projects has"),
        ("mmpretrain", "resnetv1s50", "--to timm has"),
    ],
)
def test_a_project_without_such_a_network(project, arch, way_out):
    with pytest.raises(UsageError, match=way_out):
        renamed(project, arch, {})


def test_a_file_for_another_project_tells_everything_here(mmpretrain, state, script, tmp_path):
    out = tmp_path / "r18.safetensors"
    done = script(
        *("tools/convert_weights.py", mmpretrain, "--arch", ROW, "--to", "mmpretrain"),
        *("--out", out, "--verify"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "for: an ImageClassifier with the backbone of resnet18_cifar" in done.stdout
    with safe_open(str(out), "np") as file:
        names = set(file.keys())
        assert file.metadata()["format"] == "pt"  # without it transformers refuses a file
    assert {"backbone.conv1.weight", "head.fc.bias"} <= names
    weights = load_weights(out)
    assert same(weights.tensors, state)
    assert (weights.arch, weights.preprocess) == ("resnet18_cifar", BY_NAME[ROW].preprocess)
    assert "for .safetensors" in refused(
        script, mmpretrain, "--arch", ROW, "--to", "timm", "--out", tmp_path / "x.pkl"
    )


def test_what_was_held_out_stays_known(state, script, tmp_path):
    source, out = tmp_path / "best.safetensors", tmp_path / "half.safetensors"
    held_out = {"share": 0.1, "seed": 3}
    description = {"arch": "resnet18_cifar", "held_out": held_out}
    source.write_bytes(save(state, {"resnet": json.dumps(description)}))
    done = script("tools/convert_weights.py", source, "--half", "--out", out)
    assert done.returncode == 0, done.stderr
    assert load_weights(out).held_out == held_out
