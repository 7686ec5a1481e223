from dataclasses import replace

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.engine.checkpoint import Progress, save_checkpoint
from official.vision.classification.engine.network import open_network
from official.vision.classification.errors import DataError, UsageError
from official.vision.classification.preprocess import PRESETS, Preprocess
from official.vision.classification.resnet.cifar import resnet20_cifar
from official.vision.classification.zoo.classes import imagenet_names

SMALL = Preprocess("RGB", (1, 2, 3), (4, 5, 6), resize=16, crop=16)


@pytest.fixture()
def checkpoint(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    network = resnet20_cifar(num_classes=3)
    optimizer = mge.optimizer.SGD(network.parameters(), lr=0.1)
    progress = Progress("resnet20_cifar", ("blue", "green", "red"), SMALL, {}, 0, 1, 8)
    save_checkpoint(path, network, optimizer, progress)
    return path


@pytest.fixture()
def bare(tmp_path):
    """What ``megengine.save(model.state_dict(), ...)`` writes."""
    path = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=3).state_dict(), str(path))
    return path


def test_a_checkpoint_tells_everything(checkpoint):
    network = open_network(None, str(checkpoint))
    assert (network.arch, network.num_classes) == ("resnet20_cifar", 3)
    assert network.names == ("blue", "green", "red")
    assert network.preprocess == SMALL
    assert not network.model.training


def test_a_bare_state_dict_needs_its_network_named(bare):
    network = open_network("resnet20_cifar", str(bare))
    assert network.num_classes == 3
    assert network.names == ("class_0", "class_1", "class_2")


def test_megengine_models_checkpoints(tmp_path):
    path = tmp_path / "checkpoint.pkl"
    state = resnet20_cifar(num_classes=3).state_dict()
    mge.save({"epoch": 4, "state_dict": state}, str(path))
    network = open_network("resnet20_cifar", str(path))
    assert np.array_equal(network.model.fc.weight.numpy(), state["fc.weight"])


def test_flags_override_the_file(checkpoint):
    everything = PRESETS["torchvision"].to_dict()
    network = open_network(None, str(checkpoint), preprocess=everything)
    assert network.preprocess == PRESETS["torchvision"]
    network = open_network(None, str(checkpoint), preprocess={"crop": 12})
    assert network.preprocess == replace(SMALL, crop=12)


@pytest.mark.parametrize(
    ("arch", "num_classes", "message"),
    [
        ("resnet18", None, "weights of resnet20_cifar, not of --arch resnet18"),
        (None, 5, "has 3 classes, not --num-classes 5"),
        ("resnet20_cifr", None, "did you mean resnet20_cifar"),
    ],
)
def test_contradictions_are_named(checkpoint, arch, num_classes, message):
    with pytest.raises(UsageError, match=message):
        open_network(arch, str(checkpoint), num_classes)


def test_no_published_weights():
    with pytest.raises(UsageError, match="no published weights for wide_resnet50_2"):
        open_network("wide_resnet50_2", None)
    with pytest.raises(UsageError, match="have 1000 classes, not --num-classes 10"):
        open_network("resnet18", None, num_classes=10)


def test_labels_follow_the_networks_classes_by_name(checkpoint, tiny_images):
    network = open_network(None, str(checkpoint))
    folder = load_split(tiny_images, "val")
    assert network.label(folder).labels.tolist() == folder.labels.tolist()
    object.__setattr__(network, "classes", ("red", "yellow", "blue", "green"))
    assert set(network.label(folder).labels[folder.labels == 0]) == {2}  # blue


def test_labels_of_foreign_folders_are_refused(checkpoint, tiny_images):
    network = open_network(None, str(checkpoint))
    object.__setattr__(network, "classes", ("a", "b", "c"))
    with pytest.raises(DataError, match="not among the 3 expected classes"):
        network.label(load_split(tiny_images, "val"))


def test_bare_weights_take_sorted_folders_if_their_number_fits(bare, tmp_path, tiny_images):
    network = open_network("resnet20_cifar", str(bare))
    folder = load_split(tiny_images, "val")
    assert network.label(folder) is folder
    object.__setattr__(network, "num_classes", 4)
    with pytest.raises(DataError, match="3 class folders, but the weights have 4 classes"):
        network.label(folder)


def test_a_thousand_nameless_classes_are_imagenets(tmp_path):
    path = tmp_path / "weights.pkl"
    mge.save(resnet20_cifar(num_classes=1000).state_dict(), str(path))
    network = open_network("resnet20_cifar", str(path))
    assert network.names[:2] == ("tench", "goldfish")
    assert network.names[284] == "Siamese_cat"
    assert network.classes == tuple(sorted(imagenet_names()))
