"""Files of other projects: their names, their shapes, and what they leave to be assumed."""

import json
from pathlib import Path

import megengine
import megengine.module as M
import numpy as np
import pytest
from safetensors.numpy import save_file

from official.vision.classification.errors import WeightsError
from official.vision.classification.preprocess import PRESETS, Preprocess
from official.vision.classification.readers import read_weights
from official.vision.classification.zoo import Weights, fill, get_model, load_weights
from official.vision.classification.zoo.classes import dataset_classes
from official.vision.classification.zoo.rows import BY_NAME
from official.vision.classification.zoo.trained import NetworkConfig, describe, look_up


@pytest.fixture
def save(tmp_path):
    """A file of one of the formats that are written here."""

    def save(tensors, suffix=".pkl"):
        path = tmp_path / f"weights{suffix}"
        if suffix == ".pkl":
            megengine.save(tensors, str(path))
        else:
            save_file(tensors, str(path))
        return path

    return save


def mmpretrains(state):
    return {f"head.{n}" if n[:3] == "fc." else f"backbone.{n}": v for n, v in state.items()}


# Names


@pytest.mark.parametrize("suffix", [".pkl", ".safetensors"])
def test_names_are_translated_in_every_format(suffix, save, random_state, same):
    file = mmpretrains(random_state)
    file["backbone.bn1.num_batches_tracked"] = np.array([7], np.int64)
    path = save(file, suffix)
    weights = load_weights(path)
    assert (weights.path, weights.scheme) == (path, "mmpretrain")
    assert weights.format == read_weights(path).format
    assert weights.dropped == ("backbone.bn1.num_batches_tracked",)
    assert weights.sources == dict(zip(random_state, mmpretrains(random_state)))
    assert (weights.arch, weights.classes, weights.preprocess) == (None, None, None)
    assert weights.num_classes == 10
    model = get_model("resnet20_cifar")
    fill(model, weights)
    assert same(model, random_state)


def test_a_tensor_that_comes_twice_is_told_with_the_file(save, random_state):
    path = save({**random_state, "linear.weight": random_state["fc.weight"]})
    with pytest.raises(WeightsError) as caught:
        load_weights(path)
    assert (
        str(caught.value) == f"{path}: fc.weight and linear.weight are the same tensor, fc.weight"
    )


def test_what_is_left_over_is_listed(save, random_state):
    file = {**mmpretrains(random_state), "neck.weight": np.zeros(3, np.float32)}
    with pytest.raises(WeightsError, match="does not fit the network: has neck.weight besides"):
        fill(get_model("resnet20_cifar"), load_weights(save(file)))


# Grouped convolutions


def convolved(x, weight, groups):
    """A grouped convolution by its definition in float64; ``weight`` is (O, I / groups, k, k)."""
    outputs, inputs, size, _ = weight.shape
    height, width = x.shape[2] - size + 1, x.shape[3] - size + 1
    result = np.zeros((len(x), outputs, height, width))
    for out in range(outputs):
        first = out // (outputs // groups) * inputs
        for channel in range(inputs):
            for row in range(size):
                for column in range(size):
                    part = x[:, first + channel, row : row + height, column : column + width]
                    result[:, out] += weight[out, channel, row, column] * part
    return result


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups"), [(6, 12, 3), (8, 4, 4), (4, 4, 4), (6, 6, 2)]
)
def test_a_grouped_convolution_computes_what_it_did_elsewhere(inputs, outputs, groups, save):
    random = np.random.RandomState(inputs)
    weight = random.randn(outputs, inputs // groups, 3, 3).astype(np.float32)
    network = M.Sequential(M.Conv2d(inputs, outputs, 3, groups=groups, bias=False))
    (name,) = network.state_dict()
    assert network.state_dict()[name].ndim == 5
    fill(network, load_weights(save({name: weight})))
    x = random.randn(2, inputs, 5, 6).astype(np.float32)
    expected = convolved(x.astype(np.float64), weight.astype(np.float64), groups)
    found = network(megengine.Tensor(x)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    fill(network, load_weights(save(network.state_dict())))  # as MegEngine has it
    np.testing.assert_array_equal(network(megengine.Tensor(x)).numpy(), found)


@pytest.mark.parametrize(
    "shape", [(2, 12, 3, 3), (6, 4, 3, 3), (12, 2, 9), (12, 2, 9, 1), (1, 12, 2, 3, 3), (216,)]
)
def test_other_shapes_of_as_many_numbers_are_refused(shape, save):
    network = M.Sequential(M.Conv2d(6, 12, 3, groups=3, bias=False))
    (name,) = network.state_dict()
    with pytest.raises(WeightsError, match=r"differs where .*, not \(3, 4, 2, 3, 3\); is it"):
        fill(network, load_weights(save({name: np.zeros(shape, np.float32)})))


def test_a_whole_resnext_with_the_shapes_of_torch(same):
    source = get_model("resnext50_32x4d", num_classes=3).state_dict()
    flat = {n: v.reshape(-1, *v.shape[2:]) if v.ndim == 5 else v for n, v in source.items()}
    assert flat["layer1.0.conv2.weight"].shape == (128, 4, 3, 3)
    target = get_model("resnext50_32x4d", num_classes=3)
    fill(target, Weights(Path("a file"), flat))
    assert same(target, source)


# Preprocessing and classes


def config_of(weights, arch):
    """What is known of the images and classes of a file's weights."""
    return told(describe(weights, NetworkConfig(arch)).config)


def told(config):
    return config.preprocess, config.classes


def weights_of(scheme, format, num_classes=10, **told):
    head = {"fc.weight": np.zeros((num_classes, 4), np.float32)}
    return Weights(Path("a file"), head, scheme=scheme, format=format, **told)


@pytest.mark.parametrize(
    ("scheme", "format", "preset"),
    [
        ("torchvision", "megengine-pickle", "megengine"),
        ("torchvision", "torch-zip", "torchvision"),
        ("torchvision", "torch-legacy", "torchvision"),
        ("torchvision", "safetensors", "torchvision"),
        ("cifar", "torch-legacy", "torchvision"),
        ("mmpretrain", "torch-zip", "mmpretrain"),
        ("mmpretrain", "megengine-pickle", "mmpretrain"),
        ("mindcv", "mindspore", "mmpretrain"),
    ],
)
def test_what_is_usual_where_a_file_comes_from(scheme, format, preset):
    weights = weights_of(scheme, format, num_classes=7)
    assert config_of(weights, "resnet50") == (PRESETS[preset], None)
    small = PRESETS[preset].override({"resize": 32, "crop": 32})
    for arch in ("resnet20_cifar", "resnet50_cifar"):
        assert config_of(weights, arch) == (small, None)


@pytest.mark.parametrize(
    ("scheme", "order", "mean", "std"),
    [
        ("pycls", "BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)),
        ("detectron2", "BGR", (103.53, 116.28, 123.675), (1, 1, 1)),
        ("caffe2", "BGR", (102.9801, 115.9465, 122.7717), (1, 1, 1)),
        ("timm_v2", "RGB", (127.5,) * 3, (127.5,) * 3),
        ("huggingface", "RGB", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ],
)
def test_what_is_usual_by_whose_names_a_file_has(scheme, order, mean, std):
    found, _ = config_of(weights_of(scheme, "torch-zip", num_classes=7), "resnet50")
    assert (found.order, found.mean, found.std) == (order, mean, std)


def test_what_a_file_tells_comes_first():
    own, names = Preprocess(resize=40, crop=36), tuple("abcdefghij")
    weights = weights_of("ours", "safetensors", preprocess=own, classes=names)
    for arch in ("resnet50", "resnet20_cifar"):
        assert config_of(weights, arch) == (own, names)
    nameless = weights_of("ours", "safetensors", preprocess=own)
    assert config_of(nameless, "resnet50") == (own, None)


def test_a_thousand_classes_are_imagenets():
    imagenet = dataset_classes("ImageNet-1k")
    assert config_of(weights_of("cifar", "torch-zip", 1000), "resnet20_cifar")[1] == imagenet
    for arch in ("resnet50", "resnet50_cifar"):
        for scheme in ("torchvision", "mmpretrain", "mindcv"):
            assert config_of(weights_of(scheme, "torch-zip", 10), arch)[1] is None


def test_ten_classes_of_the_cifar_networks_repository_are_cifars():
    cifar10 = dataset_classes("CIFAR-10")
    assert config_of(weights_of("cifar", "torch-legacy", 10), "resnet20_cifar")[1] == cifar10
    for count in (9, 100):
        weights = weights_of("cifar", "torch-legacy", count)
        assert config_of(weights, "resnet20_cifar")[1] is None
    named = weights_of("cifar", "torch-legacy", 10, classes=tuple("abcdefghij"))
    assert config_of(named, "resnet20_cifar")[1] == tuple("abcdefghij")


def test_a_file_without_a_classifier():
    headless = Weights(Path("a file"), {"conv1.weight": np.zeros(3, np.float32)})
    assert config_of(headless, "resnet50")[1] is None


@pytest.mark.parametrize(
    ("row", "count", "first"),
    [
        ("resnet50_fbaug_in1k", 1000, "n01440764"),
        ("resnet18_8xb16_cifar10", 10, "airplane"),
        ("resnet50_8xb16_cifar100", 100, "apple"),
        ("resnet50_8xb8_cub", 200, "001.Black_footed_Albatross"),
    ],
)
def test_what_a_row_tells(row, count, first):
    config = look_up(NetworkConfig(row)).config
    assert config.preprocess == BY_NAME[row].preprocess
    assert (len(config.classes), config.classes[0]) == (count, first)


class TestTheNetworkKnows:
    """``model.pretrained_config`` after ``pretrained=``."""

    def test_of_a_file(self, save, random_state):
        model = get_model("resnet20_cifar", pretrained=save(random_state))
        expected = PRESETS["megengine"].override({"resize": 32, "crop": 32})
        assert told(model.pretrained_config) == (expected, None)
        assert model.state_dict().keys() == random_state.keys()

    def test_of_a_file_that_tells(self, tmp_path, random_state):
        path = tmp_path / "own.safetensors"
        text = json.dumps({"preprocess": {"crop": 100}, "classes": list("abcdefghij")})
        save_file(random_state, str(path), {"resnet": text})
        model = get_model("resnet20_cifar", pretrained=path)
        assert told(model.pretrained_config) == (Preprocess(crop=100), tuple("abcdefghij"))
        other = get_model("resnet20_cifar", pretrained=path, num_classes=9)
        assert told(other.pretrained_config) == (Preprocess(crop=100), None)

    def test_of_a_row(self, row, mirror, pkl, random_state):
        mirror.offer(row, pkl(random_state))
        for wanted in (True, row.name):
            model = get_model("resnet20_cifar", pretrained=wanted)
            assert told(model.pretrained_config) == (row.preprocess, dataset_classes("CIFAR-10"))
        other = get_model("resnet20_cifar", pretrained=True, num_classes=9)
        assert told(other.pretrained_config) == (row.preprocess, None)

    def test_nothing_of_none(self):
        assert not hasattr(get_model("resnet20_cifar"), "pretrained_config")


@pytest.mark.parametrize(
    "rows",
    [
        7,
        "ranges",
        [1],
        [[3, -1]],
        [[3, -1, 1, 1]],
        [["3", -1, 1]],
        [[3, 1, 2]],
        [[3, "-1", 1]],
        [[3, -1, float("nan")]],
        [[3, -1, float("inf")]],
        [[3, -1e300, 1]],
        {"a": 1},
    ],
    ids=str,
)
def test_what_int8_is_to_know_may_be_anything(tmp_path, random_state, rows):
    path = tmp_path / "weights.safetensors"
    tensors = {name: np.ascontiguousarray(value) for name, value in random_state.items()}
    description = {"arch": "resnet20_cifar", "int8_ranges": [[3, -1, 1], [16, 0, 2.5]]}
    save_file(tensors, str(path), {"resnet": json.dumps(description)})
    assert load_weights(path).int8_ranges == ((3, -1, 1), (16, 0, 2.5))
    description["int8_ranges"] = rows
    save_file(tensors, str(path), {"resnet": json.dumps(description)})
    with pytest.raises(WeightsError, match="damaged, int8_ranges is no list of channels and"):
        load_weights(path)
