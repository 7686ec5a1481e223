import json
import logging

import megengine
import megengine.module as M
import numpy as np
import pytest
from safetensors.numpy import save_file

from official.vision.classification.errors import UsageError, WeightsError
from official.vision.classification.preprocess import PRESETS, Preprocess
from official.vision.classification.zoo import (
    Weights,
    fill,
    fill_pretrained,
    get_model,
    load_weights,
)


@pytest.fixture
def model():
    return get_model("resnet20_cifar")


@pytest.fixture
def write(tmp_path):
    """A weight file with ``tensors``: a pickle, or a safetensors file when there is metadata."""

    def write(tensors, metadata=None):
        if metadata is None:
            path = tmp_path / "weights.pkl"
            megengine.save(tensors, str(path))
        else:
            path = tmp_path / "weights.safetensors"
            save_file(tensors, str(path), metadata)
        return path

    return write


def refusal(model, path, same, **kwargs):
    """What ``fill`` says; the network must be as it was."""
    before = {name: value.copy() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        fill(model, load_weights(path), **kwargs)
    assert same(model, before)
    message = str(caught.value)
    start = f"{path}: does not fit the network: "
    assert message.startswith(start) and "\n" not in message
    return message[len(start) :]


def test_every_tensor_arrives(model, random_state, write, same, caplog):
    fill(model, load_weights(write(random_state)))
    assert same(model, random_state)
    assert caplog.messages == []


def test_missing_foreign_and_misshapen_tensors_are_listed(model, random_state, write, same):
    state = dict(random_state)
    del state["bn1.bias"], state["fc.bias"]
    state["layer9.weight"] = np.zeros(3, np.float32)
    state["conv1.weight"] = np.zeros((16, 3, 5, 5), np.float32)
    state["fc.weight"] = state["fc.weight"].T
    path = write(state)
    for new_head in (False, True):  # which is not for a classifier without its bias
        assert refusal(model, path, same, new_head=new_head) == (
            "lacks bn1.bias, fc.bias; has layer9.weight besides; differs where "
            "conv1.weight is (16, 3, 5, 5), not (16, 3, 3, 3), "
            "fc.weight is (64, 10), not (10, 64); is it of another network?"
        )


def test_only_some_of_many_are_listed(model, random_state, write, same):
    state = {f"network_{name}": value for name, value in random_state.items()}
    message = refusal(model, write(state), same)
    more = f"and {len(state) - 3} more"
    assert message.startswith(
        f"lacks bn1.bias, bn1.running_mean, bn1.running_var {more}; has network_"
    )
    assert message.endswith(f", network_bn1.running_var {more} besides; is it of another network?")


def test_a_hostile_name_does_not_reach_the_terminal(model, random_state, write, same):
    state = dict(random_state, **{"\033[2J\n" + "a" * 1000: np.zeros(1, np.float32)})
    weights = load_weights(write(state))
    assert "\033" not in weights.remark and 0 < len(weights.remark) < 300
    fill(model, weights)
    assert same(model, random_state)  # every tensor is filled once, and what else there is is named


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite(value, model, random_state, write, same):
    name = "layer2.0.bn1.running_var"
    state = dict(random_state, **{name: random_state[name].copy()})
    state[name][3] = value
    assert refusal(model, write(state), same) == f"holds NaN or infinity in {name}"


def test_integers_are_no_weights(model, random_state, write, same):
    state = {**random_state, "fc.bias": np.zeros(10, np.int64)}
    assert refusal(model, write(state), same) == "holds other than floating point in fc.bias"


def test_a_batch_norm_is_a_vector_or_has_four_dimensions(model, random_state, write, same):
    state = {
        name: value.reshape(1, -1, 1, 1) if ".bn" in f".{name}" else value
        for name, value in random_state.items()
    }
    assert state["bn1.weight"].shape == (1, 16, 1, 1)
    fill(model, load_weights(write(state)))
    assert same(model, random_state)
    for shape in [(4, 4), (1, 4, 4, 1), (15,), (16, 2), ()]:
        state["bn1.weight"] = np.ones(shape, np.float32)
        assert refusal(model, write(state), same) == (
            f"differs where bn1.weight is {shape}, not (16,); is it of another network?"
        )


def test_the_network_keeps_nothing_of_the_arrays(model, random_state):
    arrays = {name: value.copy() for name, value in random_state.items()}
    fill(model, Weights("somewhere", arrays))
    for value in arrays.values():
        value[:] = 0
    assert all(np.array_equal(v, random_state[n]) for n, v in model.state_dict().items())


def test_other_types_of_numbers(model, random_state, write, same):
    halves = {name: value.astype(np.float16) for name, value in random_state.items()}
    fill(model, load_weights(write(halves)))
    assert same(model, {name: value.astype(np.float32) for name, value in halves.items()})


def test_another_number_of_classes(random_state, write, same, caplog):
    path = write(random_state)
    model = get_model("resnet20_cifar", num_classes=7)
    before = model.state_dict()
    assert refusal(model, path, same) == (
        "differs where fc.bias is (10,), not (7,), fc.weight is (10, 64), not (7, 64); "
        "it fits resnet20_cifar"
    )
    assert caplog.messages == []
    fill(model, load_weights(path), new_head=True)
    head = {name: before[name] for name in ("fc.weight", "fc.bias")}
    assert same(model, dict(random_state, **head))
    assert caplog.messages == [f"{path}: has 10 classes; the classifier starts anew with 7"]
    caplog.clear()
    same_number = get_model("resnet20_cifar")
    fill(same_number, load_weights(path), new_head=True)
    assert same(same_number, random_state)
    assert caplog.messages == []


def test_a_new_head_is_for_the_head_alone(random_state, write, same, caplog):
    model = get_model("resnet20_cifar", num_classes=7, in_channels=1)
    assert refusal(model, write(random_state), same, new_head=True) == (
        "differs where conv1.weight is (16, 3, 3, 3), not (16, 1, 3, 3); it fits resnet20_cifar"
    )
    wide = dict(random_state, **{"fc.weight": np.zeros((10, 32), np.float32)})
    assert "fc.weight is (10, 32), not (7, 64)" in refusal(model, write(wide), same, new_head=True)
    assert caplog.messages == []


def test_the_network_is_called_by_its_name(model, random_state, write):
    path = write({name: value for name, value in random_state.items() if name != "bn1.bias"})
    with pytest.raises(WeightsError) as caught:
        fill(model, load_weights(path), name="my network")
    start = f"{path}: does not fit my network: lacks bn1.bias"
    assert str(caught.value).startswith(start)
    with pytest.raises(WeightsError, match="does not fit resnet20_cifar: lacks bn1.bias"):
        get_model("resnet20_cifar", pretrained=str(path))


def test_the_parameters_are_not_copied_to_be_compared(model, random_state, same, monkeypatch):
    """Module.state_dict() waits until all of them are drawn, and copies them."""
    whole = M.Module.state_dict

    def state_dict(self, rst=None, prefix="", keep_var=False):
        assert keep_var and prefix  # a part, asked for by load_state_dict
        return whole(self, rst, prefix, keep_var)

    with monkeypatch.context() as patched:
        patched.setattr(M.Module, "state_dict", state_dict)
        fill(model, Weights("somewhere", random_state))
    assert same(model, random_state)


def test_a_network_without_a_classifier(model, random_state, write, same):
    del model.fc
    assert refusal(model, write(random_state), same, new_head=True) == (
        "has fc.bias, fc.weight besides; it fits resnet20_cifar"
    )
    body = {name: value for name, value in random_state.items() if not name.startswith("fc.")}
    fill(model, load_weights(write(body)), new_head=True)
    assert same(model, body)


class TestPretrained:
    """``pretrained=`` with a path, a row or neither."""

    def test_a_path(self, random_state, write, same, monkeypatch):
        path = write(random_state)
        assert same(get_model("resnet20_cifar", pretrained=str(path)), random_state)
        assert same(get_model("resnet20_cifar", pretrained=path), random_state)
        monkeypatch.chdir(path.parent)
        assert same(get_model("resnet20_cifar", pretrained=path.name), random_state)

    def test_a_path_with_another_number_of_classes(self, random_state, write, caplog):
        path = write(random_state)
        assert get_model("resnet20_cifar", pretrained=path, num_classes=2).fc.weight.shape[0] == 2
        assumed, anew = caplog.messages
        assert "does not say how its images are prepared" in assumed and "anew with 2" in anew

    def test_no_such_file_or_row(self, model, random_state, same):
        fill(model, Weights("somewhere", random_state))
        for wanted, message in [
            ("no_such", "neither a file nor a row of resnet20_cifar (resnet20_cifar_30e)"),
            ("resnet18_naiveaug_in1k", "resnet18_naiveaug_in1k are weights of resnet18, not of re"),
        ]:
            with pytest.raises(UsageError) as caught:
                fill_pretrained(model, "resnet20_cifar", wanted)
            assert message in str(caught.value)
        for wanted, message in [
            (True, "there are no published weights for resnet32_cifar; give the path of a w"),
            ("no_such", "neither a file nor a row of resnet32_cifar (which has none)"),
        ]:
            with pytest.raises(UsageError) as caught:
                get_model("resnet32_cifar", pretrained=wanted)
            assert message in str(caught.value)
        with pytest.raises(UsageError) as caught:
            get_model("resnet18", pretrained="resnet18_naive")
        assert "a row of resnet18 (resnet18_naiveaug_in1k and " in str(caught.value)
        with pytest.raises(WeightsError, match="no_such.pkl: no such file"):
            get_model("resnet18", pretrained="no_such.pkl")
        assert same(model, random_state)

    def test_an_empty_name_is_not_taken_for_no(self):
        with pytest.raises(WeightsError, match="is a folder"):
            get_model("resnet20_cifar", pretrained="")
        get_model("resnet20_cifar", pretrained=None)

    def test_a_folder(self, tmp_path):
        with pytest.raises(WeightsError, match="is a folder"):
            get_model("resnet20_cifar", pretrained=str(tmp_path))


def described(**values):
    return {"resnet": json.dumps(values)}


class TestDescription:
    """What our own files say of themselves, which others may have written too."""

    CLASSES = tuple(f"n{index}" for index in range(10))

    def test_is_read(self, model, random_state, write, same):
        preprocess = PRESETS["torchvision"]
        metadata = described(
            arch="resnet20_cifar",
            classes=self.CLASSES,
            preprocess=preprocess.to_dict(),
            step=3,
            recipe={"epochs": 1},
        )
        path = write(random_state, dict(metadata, format="np"))
        weights = load_weights(str(path))
        assert weights.path == path
        assert (weights.format, weights.scheme, weights.dropped) == ("safetensors", "ours", ())
        assert (weights.arch, weights.classes) == ("resnet20_cifar", self.CLASSES)
        assert weights.preprocess == preprocess != Preprocess()
        assert weights.num_classes == 10
        fill(model, weights)
        assert same(model, random_state)

    def test_of_a_checkpoint_takes_the_network_alone(self, model, random_state, write, same):
        tensors = {f"model.{name}": value for name, value in random_state.items()}
        tensors["optimizer.conv1.weight.momentum_buffer"] = np.zeros(3, np.float32)
        weights = load_weights(write(tensors, described(classes=self.CLASSES)))
        assert weights.num_classes == 10
        fill(model, weights)
        assert same(model, random_state)

    @pytest.mark.parametrize("metadata", [{}, {"format": "pt"}, {"resnet": "{}"}])
    def test_may_be_missing_or_empty(self, metadata, random_state, write):
        weights = load_weights(write(random_state, metadata))
        assert (weights.arch, weights.classes, weights.preprocess) == (None, None, None)
        assert weights.tensors.keys() == random_state.keys()

    def test_does_not_count_in_the_tensors_of_another_file(self, random_state, write, same):
        """Without the description ``model.`` is no prefix of ours, but a wrapper like others."""
        tensors = {f"model.{name}": value for name, value in random_state.items()}
        weights = load_weights(write(tensors, {}))
        assert weights.tensors.keys() == random_state.keys()
        assert weights.scheme == "torchvision"

    HOSTILE = {
        "no JSON": "arch: resnet18",
        "empty": "",
        "a list": "[]",
        "null": "null",
        "a number": "5",
        "deep": "[" * 100_000,
        "deep object": '{"a":' * 100_000,
        "long integer": '{"a": ' + "9" * 100_000 + "}",
        "arch is a list": '{"arch": ["resnet18"]}',
        "arch is a number": '{"arch": 18}',
        "arch is true": '{"arch": true}',
        "arch is a sentence": '{"arch": "resnet18, or so"}',
        "arch steers the terminal": '{"arch": "\\u001b[2Jresnet18"}',
        "arch is long": '{"arch": "' + "a" * 100_000 + '"}',
        "classes is a number": '{"classes": 5}',
        "classes is text": '{"classes": "abcdefghij"}',
        "classes is an object": '{"classes": {"a": 1}}',
        "classes holds numbers": '{"classes": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}',
        "classes holds lists": '{"classes": [[], [], [], [], [], [], [], [], [], []]}',
        "too few classes": '{"classes": ["a", "b"]}',
        "a class twice": '{"classes": ["a", "a", "c", "d", "e", "f", "g", "h", "i", "j"]}',
        "preprocess is text": '{"preprocess": "megengine"}',
        "preprocess is a list": '{"preprocess": [1]}',
        "preprocess is false": '{"preprocess": false}',
        "unknown key": '{"preprocess": {"colour": 1}}',
        "long key": '{"preprocess": {"' + "a" * 100_000 + '": 1}}',
        "order is a list": '{"preprocess": {"order": ["BGR"]}}',
        "order is an object": '{"preprocess": {"order": {}}}',
        "mean is a number": '{"preprocess": {"mean": 5}}',
        "mean is deep": '{"preprocess": {"mean": ' + "[" * 900 + "]" * 900 + "}}",
        "mean is long": '{"preprocess": {"mean": [' + "1," * 100_000 + "1]}}",
        "mean is huge": '{"preprocess": {"mean": [1, 2, 1' + "0" * 400 + "]}}",
        "mean is NaN": '{"preprocess": {"mean": [1, 2, NaN]}}',
        "std is infinite": '{"preprocess": {"std": [1, 2, Infinity]}}',
        "std is zero": '{"preprocess": {"std": [1, 2, 0]}}',
        "resize is text": '{"preprocess": {"resize": "256"}}',
        "crop is negative": '{"preprocess": {"crop": -1}}',
        "crop is a fraction": '{"preprocess": {"crop": 224.5}}',
        "crop is true": '{"preprocess": {"crop": true}}',
        "resize is one of two": '{"preprocess": {"resize": [256]}}',
        "resize is three": '{"preprocess": {"resize": [256, 256, 256]}}',
        "resize is huge": '{"preprocess": {"resize": 1' + "0" * 400 + "}}",
        "library is unknown": '{"preprocess": {"library": "os"}}',
        "crop is larger": '{"preprocess": {"resize": 200, "crop": 224}}',
        "interpolation is a number": '{"preprocess": {"interpolation": 1}}',
    }

    @pytest.mark.parametrize("case", HOSTILE)
    def test_that_is_hostile(self, case, random_state, write):
        head = {name: random_state[name] for name in ("fc.weight", "fc.bias")}
        path = write(head, {"resnet": self.HOSTILE[case]})
        with pytest.raises(WeightsError) as caught:
            load_weights(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message
        assert len(message) < len(str(path)) + 300


def test_nothing_is_logged_while_reading(random_state, write, caplog):
    caplog.set_level(logging.DEBUG)
    load_weights(write(random_state))
    assert caplog.messages == []


def test_a_module_without_batch_norm(write, same):
    """``fill`` serves any module whose tensors have the file's names."""
    layers = lambda: (M.Conv2d(2, 3, 3), M.Conv2d(3, 1, 1), M.Linear(4, 5))  # noqa: E731
    source, target = (M.Sequential(*layers()) for _ in range(2))
    fill(target, load_weights(write(source.state_dict())))
    assert same(target, source.state_dict())
