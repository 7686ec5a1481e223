"""Int8 files: what they hold, and where their scales come from."""

import megengine as mge
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from official.vision.classification.export.check import onnx_runner
from official.vision.classification.export.onnx_ops import onnx_model
from official.vision.classification.export.quantize import quantize

from .networks import FAMILIES, images, network_of

SIZE = (24, 20)


@pytest.fixture(scope="module")
def calibration():
    """Batches whose least and largest values lie in different ones."""
    batches = [images(5, SIZE, seed=seed).clip(-3, 3) * 2 for seed in range(3)]
    batches[1][0, 0, 0, 0], batches[2][1, 2, 3, 4] = -7.0, 9.0
    return batches


def quantized(name, calibration):
    network = network_of(FAMILIES[name], SIZE)
    data = onnx_model(network, "fp32")
    return network, quantize(data, calibration)


@pytest.mark.parametrize("name", ["v1", "v1d", "resnext", "v2", "cifar"])
def test_logits_stay_close_in_every_family(name, calibration):
    network, data = quantized(name, calibration)
    x = images(40, SIZE, seed=9) * np.linspace(0.1, 2, 40, dtype=np.float32)[:, None, None, None]
    expected = network.model(mge.Tensor(x)).numpy()
    found = onnx_runner(data)(x)
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < difference < 0.15  # it is not float32
    if name == "cifar":  # whose logits change most from image to image
        for index in range(5):
            assert np.corrcoef(found[:, index], expected[:, index])[0, 1] > 0.95


def test_normalisations_that_are_not_folded_stay_in_float32(calibration, caplog):
    _, data = quantized("v2", calibration)
    graph = onnx.load_model_from_string(data).graph
    constants = {array.name: array.data_type for array in graph.initializer}
    norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
    assert len(norms) == 5
    for node in norms:
        assert {constants[name] for name in node.input[1:]} == {onnx.TensorProto.FLOAT}
    assert not caplog.records  # nothing that the quantiser could not do


def test_weights_are_small_integers_with_a_scale_for_each_channel(calibration):
    network, data = quantized("cifar", calibration)
    graph = onnx.load_model_from_string(data).graph
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    stored = [array for array in arrays.values() if array.ndim == 4]
    assert len(stored) == len(convolutions) == 13
    for array in stored:
        assert array.dtype == np.int8
        assert 60 < np.abs(array.astype(int)).max() <= 64
    scales = [name for name in arrays if "conv1.weight" in name and name.endswith("scale")]
    assert {arrays[name].shape for name in scales if "layer" not in name} == {(16,)}
    assert len(data) < 0.45 * len(onnx_model(network, "fp32"))


def test_the_scale_of_the_images_is_that_of_all_calibration_images(calibration):
    _, data = quantized("cifar", calibration)
    graph = onnx.load_model_from_string(data).graph
    arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
    (first,) = (node for node in graph.node if node.input[0] == "images")
    assert first.op_type == "QuantizeLinear"
    scale, zero = (arrays[name] for name in first.input[1:])
    assert zero.dtype == np.uint8
    assert scale == pytest.approx(16 / 255)
    assert zero == round(7 / (16 / 255))
