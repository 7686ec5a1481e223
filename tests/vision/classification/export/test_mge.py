"""Files of MegEngine Lite, run by it, against the network itself."""

import os
import sys

import megengine as mge
import megengine.module as M
import numpy as np
import pytest
from megengine.core._imperative_rt.common import CompNode
from megengine.utils.network import Network as Graph

from official.vision.classification.export.check import mge_runner
from official.vision.classification.export.mge import mge_model
from official.vision.classification.resnet.blocks import Bottleneck
from tests.vision.classification.resnet.reference import relative_difference

from .networks import CASES, FAMILIES, images, network_of


@pytest.mark.parametrize(("name", "size"), CASES)
def test_logits_are_the_networks_own_for_any_batch(name, size):
    model = network_of(FAMILIES[name], size).model
    run = mge_runner(mge_model(model, (3, *size)))
    for count in (4, 1, 2):
        x = images(count, size, seed=count)
        found, expected = run(x), model(mge.Tensor(x)).numpy()
        assert found.shape == expected.shape
        assert relative_difference(found, expected) < 1e-5


def test_the_file_names_its_ends_and_leaves_the_device_open(tmp_path):
    path = tmp_path / "small.mge"
    path.write_bytes(mge_model(network_of(FAMILIES["v1d"]).model, (3, 33, 33)))
    graph = Graph.load(str(path))
    (taken,) = graph.input_vars
    (given,) = graph.output_vars
    assert (taken.name, given.name) == ("images", "logits")
    assert {str(var.var.comp_node) for var in graph.all_vars} == {"xpux:0"}


def test_normalisations_are_folded_and_fused(tmp_path):
    path = tmp_path / "small.mge"
    model = network_of(FAMILIES["v1c"]).model
    path.write_bytes(mge_model(model, (3, 33, 33)))
    kinds = [operation.type for operation in Graph.load(str(path)).all_oprs]
    convolutions = sum(isinstance(module, M.Conv2d) for module in model.modules())
    blocks = sum(isinstance(module, Bottleneck) for module in model.modules())
    assert kinds.count("ConvBias") + kinds.count("Convolution") == convolutions
    assert kinds.count("Elemwise") == blocks + 1  # sums with ReLU, and the classifier's bias
    assert not any("BatchNorm" in kind for kind in kinds)


def test_nothing_changes_but_the_file(capfd):
    model = network_of(FAMILIES["v2"]).model
    ops, device = model.ops, CompNode._get_default_device()
    before = model.state_dict()
    mge_model(model, (3, 33, 33))
    assert model.layer1[0].ops is ops
    assert CompNode._get_default_device() == device
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    os.write(2, b"still here\n")
    sys.stderr.write("and here\n")
    assert capfd.readouterr().err == "still here\nand here\n"
