"""ONNX files, run by onnxruntime, against the network by MegEngine's kernels."""

import json

import megengine as mge
import megengine.module as M
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from official.vision.classification.export.onnx_ops import described, onnx_model
from official.vision.classification.resnet import model
from tests.vision.classification.resnet.reference import relative_difference

from .networks import CASES, DILATED, FAMILIES, images, network_of, resnet


def session_of(data):
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def kinds(data):
    return [node.op_type for node in onnx.load_model_from_string(data).graph.node]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_are_the_networks_own_for_any_batch(name, size):
    network = network_of(FAMILIES[name], size)
    session = session_of(onnx_model(network, "fp32"))
    for count in (1, 4):
        x = images(count, size, seed=count)
        (found,) = session.run(["logits"], {"images": x})
        expected = network.model(mge.Tensor(x)).numpy()
        assert found.shape == expected.shape
        assert relative_difference(found, expected) < 1e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_every_normalisation_after_a_convolution_is_folded(name):
    network = network_of(FAMILIES[name])
    found = kinds(onnx_model(network, "fp32"))
    convolutions = [m for m in network.model.modules() if isinstance(m, M.Conv2d)]
    assert found.count("Conv") == len(convolutions)
    before_convolutions = name.startswith("v2")
    assert ("BatchNormalization" in found) == before_convolutions


def test_parameters_are_called_as_in_the_network():
    network = network_of(FAMILIES["v1c"])
    graph = onnx.load_model_from_string(onnx_model(network, "fp32")).graph
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    assert arrays["conv1.0.weight"].shape == (32, 3, 3, 3)
    assert {"conv1.6.bias", "layer2.1.conv3.weight", "layer4.0.downsample.0.bias"} < set(arrays)
    assert np.array_equal(arrays["fc.weight"], network.model.fc.weight.numpy())
    assert all(array.dtype == np.float32 for array in arrays.values())


def test_the_network_is_untouched():
    network = network_of(FAMILIES["v1"])
    model, before = network.model, network.model.state_dict()
    x = mge.Tensor(images(2, (33, 33)))
    expected, ops = model(x).numpy(), model.ops
    onnx_model(network, "fp32")
    assert model.layer1[0].ops is ops
    assert np.array_equal(model(x).numpy(), expected)
    assert not any("forward" in vars(module) for module in model.modules())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_file_tells_how_to_use_it():
    network = network_of(FAMILIES["v1"], (47, 66), order="RGB", mean=(1, 2, 3), std=(4, 5, 6))
    session = session_of(onnx_model(network, "fp32"))
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == ("images", ["N", 3, 47, 66], "tensor(float)")
    assert (given.name, given.shape, given.type) == ("logits", ["N", 5], "tensor(float)")
    about = json.loads(session.get_modelmeta().custom_metadata_map["resnet"])
    assert about["arch"] == "resnet18"
    assert about["precision"] == "fp32"
    assert about["input"] == {"name": "images", "dtype": "float32", "shape": ["N", 3, 47, 66]}
    assert about["output"] == {"name": "logits", "dtype": "float32", "shape": ["N", 5]}
    assert about["classes"] == about["names"] == ["n0", "n1", "n2", "n3", "n4"]
    assert about["preprocess"] == {
        "order": "RGB",
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
        "resize": [47, 66],
        "crop": None,
        "interpolation": "bilinear",
        "library": "cv2",
        "rounding": "down",
    }


def test_a_description_replaces_the_one_before():
    data = onnx_model(network_of(FAMILIES["v1"]), "fp32")
    model = onnx.load_model_from_string(described(data, "{}"))
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("resnet", "{}")]


def test_a_network_with_other_normalisations_is_refused():
    build = resnet(model.BasicBlock, norm=lambda channels: M.GroupNorm(2, channels), **DILATED)
    with pytest.raises(ValueError, match="cannot be folded"):
        onnx_model(network_of(build), "fp32")
