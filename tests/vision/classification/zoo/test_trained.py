import json
from dataclasses import replace

import megengine as mge
import numpy as np
import pytest
from safetensors.numpy import save_file

from official.vision.classification.errors import UsageError, WeightsError
from official.vision.classification.preprocess import PRESETS, Preprocess
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.training.checkpoint import (
    Progress,
    collect_tensors,
    save_checkpoint,
)
from official.vision.classification.zoo import get_model, trained
from official.vision.classification.zoo import rows as rows
from official.vision.classification.zoo.classes import class_names, dataset_classes
from official.vision.classification.zoo.trained import (
    NetworkConfig,
    describe,
    look_up,
    open_network,
)
from official.vision.classification.zoo.weights import load_weights

SMALL = Preprocess("RGB", (1, 2, 3), (4, 5, 6), resize=16, crop=16)


@pytest.fixture()
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network = resnet20_cifar(num_classes=3)
    optimizer = mge.optimizer.SGD(network.parameters(), lr=0.1)
    progress = Progress("resnet20_cifar", ("blue", "green", "red"), SMALL, {}, 0, 1, 8)
    save_checkpoint(path, collect_tensors(network, optimizer), progress)
    return path


@pytest.fixture()
def bare(tmp_path):
    """What ``megengine.save(model.state_dict(), ...)`` writes."""
    path = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=3).state_dict(), str(path))
    return path


def test_a_checkpoint_tells_everything(checkpoint):
    network = open_network(NetworkConfig(None, str(checkpoint)))
    assert (network.arch, network.num_classes) == ("resnet20_cifar", 3)
    assert network.names == ("blue", "green", "red")
    assert network.preprocess == SMALL
    assert network.config.classes_by == "file"
    assert not network.model.training


def test_a_bare_state_dict_needs_its_network_named(bare):
    network = open_network(NetworkConfig("resnet20_cifar", str(bare)))
    assert network.num_classes == 3
    assert network.names == ("class_0", "class_1", "class_2")


def test_megengine_models_checkpoints(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    state = resnet20_cifar(num_classes=3).state_dict()
    mge.save({"epoch": 4, "state_dict": state}, str(path))
    network = open_network(NetworkConfig("resnet20_cifar", str(path)))
    assert np.array_equal(network.model.fc.weight.numpy(), state["fc.weight"])


def test_flags_override_the_file(checkpoint):
    everything = PRESETS["torchvision"].to_dict()
    network = open_network(NetworkConfig(None, str(checkpoint), preprocess=everything))
    assert network.preprocess == PRESETS["torchvision"]
    network = open_network(NetworkConfig(None, str(checkpoint), preprocess={"crop": 12}))
    assert network.preprocess == replace(SMALL, crop=12)


@pytest.mark.parametrize(
    ("arch", "num_classes", "message"),
    [
        ("resnet18", None, "weights of resnet20_cifar, not of --arch resnet18; leave that out"),
        (None, 5, "has 3 classes, not --num-classes 5; leave that out"),
        ("resnet20_cifr", None, "did you mean resnet20_cifar"),
    ],
)
def test_contradictions_are_named(checkpoint, arch, num_classes, message):
    with pytest.raises(UsageError, match=message):
        open_network(NetworkConfig(arch, str(checkpoint), num_classes))


def test_a_network_that_this_version_does_not_know(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {"fc.weight": np.zeros((3, 4), np.float32)}
    save_file(tensors, str(path), {"resnet": json.dumps({"arch": "resnet1000"})})
    with pytest.raises(UsageError, match="weights of resnet1000, which this version does not know"):
        open_network(NetworkConfig(model=str(path)))


def test_an_empty_name_is_not_taken_for_none(bare, checkpoint, tmp_path):
    """As from a shell's variable that is not set."""
    for path in (bare, checkpoint, tmp_path / "missing.pkl"):
        with pytest.raises(UsageError, match="unknown network ''"):
            open_network(NetworkConfig("", str(path)))
    with pytest.raises(UsageError, match="unknown network ''"):
        describe(load_weights(checkpoint), NetworkConfig(""))


def test_a_file_of_another_network(bare, checkpoint):
    """The file's shapes tell the network; where none fits, what is assumed is told."""
    assert open_network(NetworkConfig(model=str(bare))).arch == "resnet20_cifar"
    short = bare.with_name("short.pkl")
    mge.save({"conv1.weight": np.zeros((16, 3, 3, 3), np.float32)}, str(short))
    assumed = r"does not fit resnet18 \(assumed; --arch names another\): lacks .* another network\?"
    with pytest.raises(WeightsError, match=assumed):
        open_network(NetworkConfig(model=str(short)))
    with pytest.raises(WeightsError, match="does not fit resnet32_cifar: lacks layer1.3.bn1.bias"):
        open_network(NetworkConfig("resnet32_cifar", str(bare)))
    state = {name: value[:1] for name, value in resnet20_cifar().state_dict().items()}
    save_file(state, str(checkpoint), {"resnet": json.dumps({"arch": "resnet20_cifar"})})
    with pytest.raises(WeightsError, match="does not fit resnet20_cifar: differs where"):
        open_network(NetworkConfig(model=str(checkpoint)))


def test_a_name_that_does_not_exist_is_told_before_the_file_is_read(tmp_path):
    with pytest.raises(UsageError, match="unknown network 'resnet20': did you mean resnet20_cifar"):
        open_network(NetworkConfig("resnet20", str(tmp_path / "missing.pkl")))
    with pytest.raises(WeightsError, match="no such file"):
        open_network(NetworkConfig("resnet20_cifar", str(tmp_path / "missing.pkl")))


def test_no_published_weights():
    with pytest.raises(UsageError, match="no published weights for resnet32_cifar; .* --model"):
        open_network(NetworkConfig("resnet32_cifar", None))
    with pytest.raises(UsageError, match="unknown network ''"):
        open_network(NetworkConfig(""))
    with pytest.raises(UsageError, match="of resnet18 have 1000 classes, not --num-classes 10"):
        open_network(NetworkConfig("resnet18", None, num_classes=10))
    with pytest.raises(UsageError, match="of resnet18 have 1000 classes, not --num-classes 10"):
        open_network(NetworkConfig(num_classes=10))
    with pytest.raises(UsageError, match="of resnet50_cifar have 100 classes, not --num-cl"):
        open_network(NetworkConfig("resnet50_8xb16_cifar100", None, num_classes=10))


# What goes with a file that does not tell


def test_what_is_assumed_is_told_in_one_line(bare, caplog):
    network = open_network(NetworkConfig("resnet20_cifar", str(bare)))
    expected = PRESETS["megengine"].override({"resize": 32, "crop": 32})
    assert network.preprocess == expected
    assert network.classes is None
    assert caplog.messages == [
        f"{bare}: does not say how its images are prepared; assuming BGR, mean "
        "(103.53, 116.28, 123.675), std (57.375, 57.12, 58.395), resize 32 by cv2, crop 32; "
        "--preprocess says otherwise"
    ]


def test_files_of_other_projects_are_prepared_as_there(tmp_path):
    state = resnet20_cifar(num_classes=3).state_dict()
    path = tmp_path / "weights.safetensors"
    save_file({name: value.copy() for name, value in state.items()}, str(path))
    assert opened(path).preprocess == PRESETS["torchvision"].override({"resize": 32, "crop": 32})
    renamed = {name.replace("fc.", "backbone.fc."): value.copy() for name, value in state.items()}
    save_file(renamed, str(path))
    assert opened(path).preprocess == PRESETS["mmpretrain"].override({"resize": 32, "crop": 32})


def opened(path, **config):
    return open_network(NetworkConfig("resnet20_cifar", str(path), **config))


def test_whoever_says_how_is_not_told(bare, checkpoint, caplog):
    network = opened(bare, preprocess={"crop": 16, "order": "RGB"})
    assert (network.preprocess.resize, network.preprocess.crop) == (32, 16)
    assert network.preprocess.mean == PRESETS["torchvision"].mean
    opened(checkpoint)
    assert caplog.messages == []


@pytest.fixture
def row(monkeypatch):
    """A published row of three classes of resnet20_cifar, which other rows have too."""
    row = replace(
        rows.BY_NAME["resnet18_8xb16_cifar10"],
        name="resnet20_row",
        arch="resnet20_cifar",
        num_classes=3,
        preprocess=SMALL,
    )
    monkeypatch.setitem(rows.BY_NAME, row.name, row)
    monkeypatch.setattr(trained, "dataset_classes", lambda dataset: ("x", "y", f"{dataset} z"))
    return row


def test_a_rows_name_tells_what_its_file_does_not(row, bare, caplog):
    network = open_network(NetworkConfig(row.name, str(bare)))
    assert (network.arch, network.preprocess) == ("resnet20_cifar", SMALL)
    assert network.classes == ("x", "y", "CIFAR-10 z")
    assert network.config.classes_by == "row"
    changed = open_network(NetworkConfig(row.name, str(bare), preprocess={"crop": 12}))
    assert changed.preprocess == replace(SMALL, crop=12)
    assert caplog.messages == []


def test_a_file_knows_better_than_the_row(row, checkpoint, tmp_path):
    """As after fine-tuning from it: with its own classes, of which there may be as many."""
    network = open_network(NetworkConfig(row.name, str(checkpoint)))
    assert network.names == ("blue", "green", "red") and network.config.classes_by == "file"
    state = resnet20_cifar(num_classes=3).state_dict()
    path = tmp_path / "weights.safetensors"
    for told, classes, preprocess in [
        ({"classes": ["a", "b", "c"]}, ("a", "b", "c"), SMALL),
        ({"preprocess": {"crop": 99}}, ("x", "y", "CIFAR-10 z"), Preprocess(crop=99)),
    ]:
        tensors = {name: value.copy() for name, value in state.items()}
        save_file(tensors, str(path), {"resnet": json.dumps(told)})
        network = open_network(NetworkConfig(row.name, str(path)))
        assert (network.classes, network.preprocess) == (classes, preprocess)
        assert (network.config.classes_by == "file") == ("classes" in told)


def test_a_row_of_another_number_of_classes_tells_nothing(row, tmp_path, caplog):
    path = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=4).state_dict(), str(path))
    network = open_network(NetworkConfig(row.name, str(path)))
    assert (network.num_classes, network.classes) == (4, None)
    assert network.preprocess == PRESETS["megengine"].override({"resize": 32, "crop": 32})
    assert len(caplog.messages) == 1


# Published weights


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Instead of a download: weights of CIFAR-10, which say for which row they were wanted."""
    path = tmp_path / "published.pkl"
    mge.save(resnet20_cifar(num_classes=10).state_dict(), str(path))
    wanted = []
    base = rows.BY_NAME["resnet18_8xb16_cifar10"]
    made = [
        replace(base, name="first", arch="resnet20_cifar", preprocess=SMALL),
        replace(base, name="second", arch="resnet20_cifar", preprocess=replace(SMALL, crop=9)),
    ]
    monkeypatch.setattr(rows, "ROWS", tuple(made))
    for row in made:
        monkeypatch.setitem(rows.BY_NAME, row.name, row)
    monkeypatch.setattr(trained, "_fetch", lambda model, row: wanted.append(row.name) or path)
    return wanted


@pytest.mark.parametrize(
    ("name", "row", "crop"),
    [("resnet20_cifar", "first", 16), ("first", "first", 16), ("second", "second", 9)],
)
def test_published_weights_come_with_their_row(published, caplog, name, row, crop):
    network = open_network(NetworkConfig(name))
    assert published == [row]
    assert (network.arch, network.num_classes) == ("resnet20_cifar", 10)
    assert network.preprocess == replace(SMALL, crop=crop)
    assert network.classes == dataset_classes("CIFAR-10") and network.config.classes_by == "row"
    assert not network.model.training
    assert caplog.messages == []
    changed = open_network(NetworkConfig(name, num_classes=10, preprocess={"crop": 11}))
    assert changed.preprocess == replace(SMALL, crop=11)


def test_a_thousand_nameless_classes_are_imagenets(tmp_path):
    path = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=1000).state_dict(), str(path))
    network = open_network(NetworkConfig("resnet20_cifar", str(path)))
    assert network.names[:2] == ("tench", "goldfish")
    assert network.names[284] == "Siamese_cat"
    assert network.classes == tuple(sorted(class_names("ImageNet-1k")))


def test_the_best_is_meant_by_a_word():
    """As a file of weights, and as pretrained=; nothing is fetched to know it."""
    for arch, row in (
        ("resnet50", "resnet50.a1_in1k"),
        ("resnet50_fbaug_in1k", "resnet50.a1_in1k"),
        ("resnetv1d18", "resnet18d.ra4_e3600_r224_in1k"),
        ("resnext101_32x8d", "resnext101_32x8d.tv2_in1k"),
    ):
        source = look_up(NetworkConfig(arch, "best"))
        assert (source.row.name, source.config.source) == (row, row)
        assert source.config.preprocess == rows.BY_NAME[row].preprocess
    assert look_up(NetworkConfig("resnet50")).row.name == "resnet50_fbaug_in1k"
    for name in ("resnext101_32x16d", "resnext101_32x48d"):
        with pytest.raises(UsageError) as caught:
            look_up(NetworkConfig(name, "best"))
        assert f"no published weights of {name} may be used commercially" in str(caught.value)
        assert f"{name}.fb_wsl_ig1b_ft_in1k" in str(caught.value)
    with pytest.raises(UsageError, match="no published weights for resnet32_cifar"):
        get_model("resnet32_cifar", pretrained="best")


def test_a_licence_is_said_for_a_file_of_its_own_too(row, bare, caplog, monkeypatch):
    """Whose row is named: what a file holds is not known otherwise."""
    monkeypatch.setitem(rows.BY_NAME, row.name, replace(row, licence="CC-BY-NC-4.0"))
    open_network(NetworkConfig(row.name, str(bare)))
    assert caplog.messages == [
        "resnet20_row: the licence of these weights, CC-BY-NC-4.0, forbids commercial use"
    ]
