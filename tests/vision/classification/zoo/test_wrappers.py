"""Networks of other projects in what people wrap around them, and without their classifier."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from official.vision.classification.errors import UserError, WeightsError
from official.vision.classification.zoo import fill, get_model, load_weights
from official.vision.classification.zoo.fits import network_of
from official.vision.classification.zoo.trained import NetworkConfig, look_up, network_from
from tests.scripts import ROOT
from tests.vision.classification.zoo.conftest import prefixed


def body_of(state):
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def head_of(state, name="fc"):
    return {f"{name}.weight": state["fc.weight"], f"{name}.bias": state["fc.bias"]}


def flat(name):
    return "ema_" + name.replace(".", "_")


WORDS = "net network module student teacher ema weights params model_state anything".split()
WRAPPED = {
    **{f"{word} as a key": lambda s, word=word: {word: s} for word in WORDS},
    **{f"{word} as a prefix": lambda s, word=word: prefixed(f"{word}.", s) for word in WORDS},
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled, parallel": lambda s: {"model": prefixed("module._orig_mod.", s)},
    "compiled layer": lambda s: {
        n.replace("layer1.", "layer1._orig_mod."): v for n, v in s.items()
    },
    "Lightning": lambda s: {
        "state_dict": {**prefixed("model.net.", s), "criterion.weight": np.ones(10, np.float32)},
        "optimizer_states": [{"state": {0: {"exp_avg": np.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1},
    },
    "DeepSpeed": lambda s: {"module": s, "ds_config": {"train_batch_size": 3}},
    "deep": lambda s: {"a": {"b": {"c": {"d": prefixed("e.f.", s)}}}},
    "a list": lambda s: [s, {"state": {}}],
    "a tree": lambda s: {"params": {"net": {n: {"x": 3} for n in "ab"}}, "tree": tree(s)},
    "a loss beside": lambda s: {**s, "criterion.weight": np.ones(10)},
    "statistics of the images": lambda s: {
        **prefixed("backbone.", body_of(s)),
        **head_of(s, "head.fc"),
        "data_preprocessor.mean": np.ones((3, 1, 1)),
    },
    "MMCV's EMAHook": lambda s: {
        "state_dict": {
            **prefixed("backbone.", body_of(s)),
            **head_of(s, "head.fc"),
            **{flat(f"backbone.{name}"): value + 1 for name, value in body_of(s).items()},
            **{flat(name): value + 1 for name, value in head_of(s, "head.fc").items()},
        }
    },
    "a classifier after dropout": lambda s: {**body_of(s), **head_of(s, "fc.1")},
    "a classifier beside": lambda s: {**prefixed("encoder.", body_of(s)), **head_of(s, "linear")},
    "a classifier of 1x1": lambda s: {**s, "fc.weight": s["fc.weight"][:, :, None, None]},
    "a Sequential": lambda s: prefixed("features.", sequential(s)),
}


def tree(state):
    root = {}
    for name, value in state.items():
        *parts, last = name.split(".")
        at = root
        for part in parts:
            at = at.setdefault(part, {})
        at[last] = value
    return root


def sequential(state):
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "fc": "9"}
    return {re.sub(r"^\w+", lambda m: places[m.group()], name): v for name, v in state.items()}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_network_is_found_whatever_is_around_it(kind, save, random_state, same):
    weights = load_weights(save(WRAPPED[kind](random_state)))
    model = get_model("resnet20_cifar")
    fill(model, weights)
    assert same(model, random_state)
    assert network_of(weights) == "resnet20_cifar"
    assert weights.sources.keys() == weights.tensors.keys() == random_state.keys()


def test_mmcvs_mean_lies_where_the_weights_were(save, random_state, same):
    path = save(WRAPPED["MMCV's EMAHook"](random_state))
    assert same(load_weights(path, average=True).tensors, random_state)
    others = load_weights(path, entry="state_dict.ema").tensors
    assert same(others, {name: value + 1 for name, value in random_state.items()})


# Names of MindCV's training checkpoints: mindcv/utils/train_step.py saves the training step.
def mindcv(name):
    if ".bn" in name or name.startswith("bn"):
        parts = {"weight": "gamma", "bias": "beta"}
        parts.update({"running_mean": "moving_mean", "running_var": "moving_variance"})
        return re.sub(r"\w+$", lambda m: parts[m.group()], name)
    return name.replace("fc.", "classifier.")


TRAINED = [
    "momentum.",
    "moments.",
    "lamb_m.",
    "lamb_v.",
    "adam_m.",
    "adam_v.",
    "accum_grad.",
    "ema.",
]


@pytest.mark.parametrize("prefix", TRAINED)
def test_mindcvs_training_checkpoints(prefix, save, random_state, same):
    state = {mindcv(name): value for name, value in random_state.items()}
    trained = [name for name in state if "moving" not in name or prefix == "ema."]
    scalars = "updates scale_sense global_step epoch_num step_num learning_rate beta1_power".split()
    file = {
        **{name: np.ones((), np.float32) for name in scalars},
        **{prefix + name: state[name] + 1 for name in trained},
        **state,
    }
    weights = load_weights(save(file))
    assert weights.scheme == "mindcv" and same(weights.tensors, random_state)
    fill(get_model("resnet20_cifar"), weights)
    if prefix == "ema.":
        mean = load_weights(save(file), average=True).tensors
        assert same(mean, {name: value + 1 for name, value in random_state.items()})


# Without a classifier of theirs

MLP = {"fc.0.weight": np.ones((64, 64), np.float32), "fc.2.weight": np.ones((8, 64), np.float32)}
HEADLESS = {
    "none": lambda s: body_of(s),
    "MoCo": lambda s: {
        **prefixed("module.encoder_q.", {**body_of(s), **MLP}),
        **prefixed("module.encoder_k.", {**body_of(s), **MLP}),
        "module.queue": np.ones((8, 4)),
    },
    "SimSiam": lambda s: {**prefixed("encoder.", {**body_of(s), **MLP}), "predictor.0.weight": MLP},
    "SimCLR": lambda s: {
        **prefixed("backbone.", body_of(s)),
        "projector.0.weight": np.ones((4, 64), np.float32),
        "projector.0.bias": np.ones(4, np.float32),
    },
    "VISSL": lambda s: {
        "base_model": {"trunk": prefixed("_feature_blocks.", body_of(s)), "heads": {}},
    },
    "mmselfsup": lambda s: {
        **prefixed("backbone.", body_of(s)),
        "neck.mlp.0.weight": np.ones((4, 64), np.float32),
        "head.predictor.weight": np.ones((4, 4), np.float32),
    },
}


@pytest.mark.parametrize("kind", HEADLESS)
def test_another_head_is_refused_only_where_a_classifier_is_needed(kind, save, random_state):
    path = save({"state_dict": HEADLESS[kind](random_state)})
    weights = load_weights(path)
    assert weights.num_classes is None and network_of(weights) == "resnet20_cifar"
    model = get_model("resnet20_cifar", num_classes=7)
    own = model.fc.weight.numpy().copy()
    fill(model, weights, new_head=True)
    assert np.array_equal(model.conv1.weight.numpy(), random_state["conv1.weight"])
    assert np.array_equal(model.fc.weight.numpy(), own)
    with pytest.raises(WeightsError, match="has no classifier.* needed here.*--pretrained"):
        fill(model, weights)


# A network that computes something else is refused, whatever fits of it.
OTHERS = {
    "squeeze and excitation": {"layer1.0.se.fc1.weight": np.ones((4, 16, 1, 1))},
    "a deeper stem": {"conv2.weight": np.ones((16, 16, 3, 3))},
    "a neck": {"neck.weight": np.ones((64, 64))},
    "a fourth block": {"layer1.3.conv1.weight": np.ones((16, 16, 3, 3))},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_may_be_between_the_images_and_the_logits_is_refused(kind, save, random_state):
    weights = load_weights(save({**random_state, **OTHERS[kind]}))
    with pytest.raises(WeightsError, match="besides"):
        fill(get_model("resnet20_cifar"), weights)


HINTS = {
    "pruned": ("conv1.weight_orig", "torch.nn.utils.prune.remove makes plain weights of it"),
    "parametrized": (
        "conv1.parametrizations.weight.original0",
        "remove_parametrizations makes it plain",
    ),
    "normed": ("conv1.weight_g", "remove_parametrizations makes it plain"),
    "adapted": ("conv1.lora_A.weight", "merge them into the weights first"),
}


@pytest.mark.parametrize("kind", HINTS)
def test_the_way_out_of_what_does_not_fit_is_told(kind, save, random_state):
    name, way_out = HINTS[kind]
    state = {**random_state, name: np.ones(16, np.float32)}
    del state["conv1.weight"]
    with pytest.raises(WeightsError, match=rf"lacks conv1.weight.*; it .*{way_out}$"):
        fill(get_model("resnet20_cifar"), load_weights(save(state)))


def test_one_of_several_files(save, random_state):
    path = save(dict(list(random_state.items())[:40]))
    path = path.rename(path.with_name("model-00001-of-00002.safetensors"))
    with pytest.raises(WeightsError, match="it is one of several files: put their tensors"):
        fill(get_model("resnet20_cifar"), load_weights(path))


def test_a_quantised_classifier(save, random_state):
    state = {**body_of(random_state), "fc.scale": np.ones(()), "fc.zero_point": np.zeros(())}
    with pytest.raises(WeightsError, match="it is of a quantised network: save that of floats"):
        fill(get_model("resnet20_cifar"), load_weights(save(state)))


def test_the_file_tells_the_network_and_a_wrong_one_is_told(save, random_state):
    path = str(save({"model": random_state}))
    source = look_up(NetworkConfig(model=path))
    assert (source.config.arch, source.arch_by) == ("resnet20_cifar", "file")
    assert network_from(source).num_classes == 10
    with pytest.raises(UserError, match="does not fit resnet32_cifar.*; it fits resnet20_cifar$"):
        network_from(look_up(NetworkConfig("resnet32_cifar", path)))


def test_asking_which_network_it_is_takes_little_memory():
    """The names of networks with gigabytes of weights have the 32 of ResNet-32 as well."""
    script = (
        "import resource\n"
        "from official.vision.classification.resnet.cifar import resnet32_cifar\n"
        "from official.vision.classification.zoo.fits import network_of\n"
        "from official.vision.classification.zoo.weights import Weights\n"
        "tensors = {k: v for k, v in resnet32_cifar().state_dict().items()}\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert network_of(Weights('file', tensors)) == 'resnet32_cifar'\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 500  # MB; ResNeXt-101 32x48d alone has 3,300
