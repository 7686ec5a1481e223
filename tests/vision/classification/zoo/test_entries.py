"""Networks in the files of training runs: which is taken, and what is said of the choice."""

import collections

import numpy as np
import pytest

from official.vision.classification.errors import UsageError, WeightsError
from official.vision.classification.zoo import load_weights
from official.vision.classification.zoo.trained import NetworkConfig, describe
from tests.oracles import files, seeded
from tests.vision.classification.zoo.conftest import prefixed


@pytest.fixture(scope="module")
def mean(random_state):
    """Other numbers under the same names."""
    return {name: value + np.float32(2) for name, value in random_state.items()}


# The raw weights' entry and the mean's, as the projects write them: (raw, its prefix, mean, its).
PAIRS = {
    "timm": ("state_dict", "", "state_dict_ema", ""),
    "torchvision": ("model", "", "model_ema", "module."),
    "wrapped": ("model", "module.", "ema", "module._orig_mod."),
    "swa": ("model_state_dict", "", "swa_model", "module."),
    "averaged": ("net", "", "averaged_model", ""),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_the_mean_is_taken_on_request_only(kind, save, random_state, mean, same):
    raw, its_prefix, other, prefix = PAIRS[kind]
    counted = {**prefixed(prefix, mean), "n_averaged": np.array(7)}
    for turned in (False, True):
        entries = {other: counted, raw: prefixed(its_prefix, random_state)}
        path = save(dict(sorted(entries.items(), reverse=turned)))
        plain, averaged = load_weights(path), load_weights(path, average=True)
        assert same(plain.tensors, random_state) and same(averaged.tensors, mean)
        name = plain.remark.split(", not ")[0]
        assert name.startswith(f"takes {raw}") and other in plain.remark
        assert averaged.remark.startswith(f"takes {other}")
        assert "--average and --entry say otherwise" in plain.remark
        assert same(load_weights(path, entry=other).tensors, mean)
        assert same(load_weights(path, entry=raw).tensors, random_state)
        assert set(averaged.sources.values()) == set(prefixed(prefix, mean))


def test_a_mean_alone_is_taken_and_told(save, mean, same):
    path = save({"state_dict_ema": mean, "epoch": 3})
    for weights in (load_weights(path), load_weights(path, average=True)):
        assert same(weights.tensors, mean)
        assert weights.remark == "takes state_dict_ema, averaged weights, as there are no others"


def test_mmengine_swaps_the_two(save, random_state, mean, same):
    """Its EMAHook saves the mean as state_dict, which is what it tests, and the weights beside."""
    raw = {"steps": np.array(5), **prefixed("module.backbone.", random_state)}
    state = prefixed("backbone.", mean)
    path = save({"meta": {"mmengine_version": "0.10"}, "state_dict": state, "ema_state_dict": raw})
    assert same(load_weights(path).tensors, mean)
    assert same(load_weights(path, average=True).tensors, mean)
    assert same(load_weights(path, entry="ema_state_dict").tensors, random_state)


def test_what_is_not_there(save, random_state):
    path = save({"model": random_state, "optimizer": {"state": {}}})
    with pytest.raises(UsageError) as caught:
        load_weights(path, entry="model_ema")
    assert str(caught.value) == (
        f"{path}: --entry model_ema: no such network in the file; there are model"
    )
    with pytest.raises(UsageError, match="--average: has no averaged weights; there are model"):
        load_weights(path, average=True)


def test_one_network_needs_no_remark(save, random_state):
    for value in (random_state, {"state_dict": random_state, "epoch": 3, "lr": [0.1]}):
        assert load_weights(save(value)).remark == ""


def test_the_optimizer_and_a_loss_are_left_out_and_named(save, random_state, same):
    moments = {index: {"exp_avg": np.ones(3)} for index in range(4)}
    state = {**prefixed("model.", random_state), "criterion.weight": np.ones(10)}
    path = save({"state_dict": state, "optimizer": {"state": moments}})
    weights = load_weights(path)
    assert same(weights.tensors, random_state)
    assert weights.remark == "leaves out criterion (1 tensor), optimizer (4 tensors)"


def test_the_choice_is_said_once_where_a_user_can_read_it(save, random_state, mean, caplog):
    path = save({"state_dict": random_state, "state_dict_ema": mean})
    describe(load_weights(path), NetworkConfig("resnet20_cifar", str(path)))
    told = [record.getMessage() for record in caplog.records if "takes" in record.getMessage()]
    assert told == [
        f"{path}: takes state_dict, not state_dict_ema (--average and --entry say otherwise)"
    ]
    caplog.clear()
    describe(load_weights(path), NetworkConfig("resnet20_cifar", str(path)), say=False)
    assert not caplog.records


# Names of classes

NAMES = [f"kind {index}" for index in (3, 1, 4, 5, 9, 2, 6, 8, 7, 0)]
INDEX = {name: index for index, name in enumerate(NAMES)}
SAID = {
    "MMPreTrain": {"meta": {"dataset_meta": {"classes": NAMES}}},
    "MMClassification": {"meta": {"CLASSES": tuple(NAMES)}},
    "a folder's": {"class_to_idx": INDEX},
    "a folder's, in another order": {"class_to_idx": dict(sorted(INDEX.items()))},
    "turned": {"idx_to_class": {index: name for name, index in INDEX.items()}},
    "a configuration's": {"config": {"id2label": {str(i): name for name, i in INDEX.items()}}},
    "a list": {"classes": NAMES},
    "Lightning's": {"hyper_parameters": {"lr": 0.1, "class_names": NAMES}},
    "ordered": {"class_to_idx": collections.OrderedDict(INDEX)},
}


@pytest.mark.parametrize("kind", SAID)
def test_names_of_classes_are_taken_from_the_file(kind, save, random_state):
    path = save({"state_dict": random_state, **SAID[kind]})
    weights = load_weights(path)
    assert weights.classes == tuple(NAMES)
    known = describe(weights, NetworkConfig("resnet20_cifar", str(path))).config
    assert (known.classes, known.classes_by) == (tuple(NAMES), "file")


NO_NAMES = {
    "nine": {"classes": NAMES[:9]},
    "eleven": {"class_to_idx": {**INDEX, "more": 10}},
    "one twice": {"classes": [*NAMES[:9], NAMES[0]]},
    "an index twice": {"class_to_idx": {**INDEX, NAMES[0]: 1}},
    "numbers": {"classes": list(range(10))},
    "a number": {"classes": 10},
    "text of ten letters": {"classes": "abcdefghij"},
    "none": {"meta": {"CLASSES": None}},
    "escapes": {"classes": [*NAMES[:9], "\033[2J"]},
    "a long index": {"idx_to_class": {**{str(i): n for n, i in INDEX.items()}, "1" * 5000: "x"}},
}


@pytest.mark.parametrize("kind", NO_NAMES)
def test_what_are_no_names_of_these_classes_is_passed_over(kind, save, random_state):
    assert load_weights(save({"state_dict": random_state, **NO_NAMES[kind]})).classes is None


def test_compiled_and_plain_names_of_one_tensor_are_refused(save, random_state):
    path = save({**random_state, "_orig_mod.conv1.weight": random_state["conv1.weight"]})
    with pytest.raises(WeightsError, match="are the same tensor, conv1.weight"):
        load_weights(path)


def test_a_new_classifier_on_a_network_of_keras(save):
    """As transfer learning has it: the network is a layer, its last one stands beside it."""
    manifest = seeded.of_types(files.read_manifest()["keras_3.h5"])
    layers = {}
    for name, value in manifest.items():
        layer, _, part = name.split(".")
        if layer != "predictions":
            layers.setdefault(layer, {})[f"{part}:0"] = value
    head = {"kernel:0": np.arange(24, dtype=np.float32).reshape(8, 3), "bias:0": np.ones(3, "f4")}
    file = {
        "model_weights": {"resnet50": layers, "dropout": {}, "out": {"out": head}},
        "optimizer_weights": {"adam": {"m": {"out": {"kernel:0": head["kernel:0"]}}}},
    }
    weights = load_weights(save(file))
    assert (weights.scheme, weights.num_classes) == ("keras", 3)
    assert np.array_equal(weights.tensors["fc.weight"], head["kernel:0"].T)
    assert weights.sources["fc.bias"] == "model_weights.out.out.bias:0"
    assert weights.remark == (
        "leaves out optimizer_weights (1 tensor); takes model_weights.out.out.kernel:0, "
        "model_weights.out.out.bias:0 as its classifier"
    )


def test_resnet_v2_of_keras_is_refused(save):
    names = ("conv1_conv", "conv2_block1_preact_bn", "conv2_block1_1_conv")
    file = {name: {name: {"kernel": np.ones((1, 1, 2, 2), np.float32)}} for name in names}
    with pytest.raises(WeightsError, match="is of Keras's ResNet v2, whose stages halve the map"):
        load_weights(save(file))
