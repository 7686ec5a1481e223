"""config.json and preprocessor_config.json beside weights, as transformers and timm write them."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from official.vision.classification.preprocess import Preprocess
from official.vision.classification.zoo import get_model, load_weights
from official.vision.classification.zoo.trained import NetworkConfig, describe

NAMES = [f"kind {index}" for index in range(10)]
# microsoft/resnet-50's, but for the classes
TRANSFORMERS = {
    "architectures": ["ResNetForImageClassification"],
    "depths": [3, 4, 6, 3],
    "downsample_in_first_stage": False,
    "hidden_act": "relu",
    "id2label": {str(index): name for index, name in enumerate(NAMES)},
    "model_type": "resnet",
}
CONVNEXT = {
    "crop_pct": 0.875,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 224,
}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}
# timm/resnet50.a1_in1k's
TIMM = {
    "architecture": "resnet50",
    "num_classes": 10,
    "label_names": NAMES,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    },
}
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def rgb(mean, std, resize, crop, interpolation):
    return Preprocess("RGB", mean, std, resize, crop, interpolation, "pillow")


@pytest.fixture
def put(tmp_path, random_state):
    """The weights' path, with these files beside them."""

    def put(config=None, preprocessor=None):
        path = tmp_path / "model.safetensors"
        save_file(random_state, str(path))
        files = {"config.json": config, "preprocessor_config.json": preprocessor}
        for name, value in files.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                (tmp_path / name).write_text(text)
        return path

    return put


def test_timms(put):
    weights = load_weights(put(TIMM))
    assert weights.preprocess == rgb(MEAN, STD, 235, 224, "bicubic")
    assert weights.classes == tuple(NAMES) and not weights.stride_first
    assert weights.remark == (
        "takes the preparation of its images from config.json and the names of its classes from "
        "config.json beside it"
    )
    known = describe(weights, NetworkConfig("resnet20_cifar", str(weights.path))).config
    assert (known.preprocess_by, known.classes_by) == ("file", "file")


def test_timms_squash(put):
    config = {**TIMM, "pretrained_cfg": {**TIMM["pretrained_cfg"], "crop_mode": "squash"}}
    assert load_weights(put(config)).preprocess.resize == (235, 235)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, rgb(MEAN, STD, 256, 224, "bicubic")),
        ({"size": {"shortest_edge": 288}, "crop_pct": 0.95}, rgb(MEAN, STD, 303, 288, "bicubic")),
        ({"size": {"shortest_edge": 384}}, rgb(MEAN, STD, (384, 384), None, "bicubic")),
        ({"do_normalize": False}, rgb((0, 0, 0), (255,) * 3, 256, 224, "bicubic")),
    ],
)
def test_transformers(changes, expected, put):
    weights = load_weights(put(TRANSFORMERS, {**CONVNEXT, **changes}))
    assert weights.preprocess == expected
    assert weights.classes == tuple(NAMES)


@pytest.mark.parametrize(
    ("changes", "resize", "crop"),
    [
        ({}, (224, 224), None),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, 256, 224),
    ],
)
def test_transformers_other_processors(changes, resize, crop, put):
    found = load_weights(put(TRANSFORMERS, {**VIT, **changes})).preprocess
    assert found == rgb((127.5,) * 3, (127.5,) * 3, resize, crop, "bilinear")


def test_names_that_are_numbers_are_none(put):
    labels = {str(index): f"LABEL_{index}" for index in range(10)}
    weights = load_weights(put({**TRANSFORMERS, "id2label": labels}))
    assert (weights.classes, weights.preprocess, weights.remark) == (None, None, "")


def test_where_the_strides_are(tmp_path):
    """transformers' ``downsample_in_bottleneck`` is v1a."""
    path = tmp_path / "model.safetensors"
    state = get_model("resnet50", num_classes=10).state_dict()
    save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, str(path))
    for first, arch in ((True, "resnetv1a50"), (False, "resnet50")):
        config = {**TRANSFORMERS, "downsample_in_bottleneck": first}
        (tmp_path / "config.json").write_text(json.dumps(config))
        weights = load_weights(path)
        assert describe(weights, NetworkConfig(model=str(path))).config.arch == arch


def test_a_wrong_network_is_said(put, caplog):
    path = put({**TRANSFORMERS, "downsample_in_bottleneck": True})
    weights = load_weights(path)
    weights.tensors["layer1.0.conv3.weight"] = np.ones(1, np.float32)
    describe(weights, NetworkConfig("resnet50", str(path)))
    assert "strides at the first 1x1 convolutions, resnet50 at the 3x3 ones" in caplog.text


UNUSED = {
    "another act": ({**TRANSFORMERS, "hidden_act": "gelu"}, None, "hidden_act is gelu"),
    "stage": ({**TRANSFORMERS, "downsample_in_first_stage": True}, None, "downsample_in_first"),
    "another number": ({**TIMM, "num_classes": 7}, None, "it has 7 classes and the weights 10"),
    "NaN": (TRANSFORMERS, {**CONVNEXT, "image_mean": [float("nan")] * 3}, "image_mean is nan"),
    "huge": (TRANSFORMERS, {**CONVNEXT, "size": 10**9}, "size is 1000000000, not a number from"),
    "true": (TRANSFORMERS, {**CONVNEXT, "size": True}, "size is True"),
    "no crop": (TRANSFORMERS, {**CONVNEXT, "crop_pct": 0}, "crop_pct is 0"),
    "a list": (TRANSFORMERS, {**CONVNEXT, "resample": 4}, "resample is none of"),
    "two": (TRANSFORMERS, {**CONVNEXT, "image_std": [1, 2]}, "image_std is no list of three"),
    "zero": (TRANSFORMERS, {**CONVNEXT, "image_std": [0, 1, 1]}, "std must be positive"),
    "escape": ({**TRANSFORMERS, "hidden_act": "\033[2J"}, None, "hidden_act is \\x1b"),
}


@pytest.mark.parametrize("case", UNUSED)
def test_what_is_not_as_expected_is_told_and_not_used(case, put):
    config, preprocessor, reason = UNUSED[case]
    weights = load_weights(put(config, preprocessor))
    assert (weights.preprocess, weights.classes) == (None, None)
    assert weights.remark.startswith("config.json beside it is not used: ")
    assert reason in weights.remark and len(weights.remark) < 300


OTHERS = {
    "no JSON": "{",
    "another tool's": '{"name": "package"}',
    "a list": "[1, 2]",
    "deep": "[" * 100_000,
    "another network": '{"model_type": "bert"}',
    "large": " " * (17 << 20) + "{}",
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_files_are_passed_over(case, put):
    weights = load_weights(put(OTHERS[case]))
    assert (weights.preprocess, weights.classes, weights.remark) == (None, None, "")


def test_a_pipe_is_not_waited_for(put, tmp_path):
    path = put()
    os.mkfifo(tmp_path / "config.json")
    assert load_weights(path).remark == ""


def test_our_own_files_need_none(put, tmp_path):
    path = put(TIMM)
    description = json.dumps({"arch": "resnet20_cifar"})
    tensors = get_model("resnet20_cifar").state_dict()
    save_file(tensors, str(path), metadata={"resnet": description})
    assert load_weights(path).preprocess is None
