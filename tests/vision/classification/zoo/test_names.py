"""Names of other projects' tensors, written out as those projects write them."""

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.zoo import Weights, fill, get_model
from official.vision.classification.zoo.names import in_our_shapes, translate

BN = ("weight", "bias", "running_mean", "running_var")
D_MARK = "backbone.layer2.0.downsample.2.weight"  # that of a ResNet-D


def tensors(names):
    """An array for each name, in which no two are alike."""
    return {name: np.full(2, index, np.float32) for index, name in enumerate(names)}


def check(expected, scheme, dropped=()):
    """The file's names, all at once, become the names they have in ``expected``."""
    given = tensors([*expected, *dropped])
    found = translate(given)
    assert found.scheme == scheme
    assert {source: ours for ours, source in found.sources.items()} == expected
    assert found.tensors.keys() == found.sources.keys()
    for ours, source in found.sources.items():
        assert found.tensors[ours] is given[source]
    assert sorted(found.dropped) == sorted(dropped)


TORCHVISION = [
    "conv1.weight",
    *(f"bn1.{part}" for part in BN),
    "layer1.0.conv1.weight",
    "layer3.22.conv3.weight",
    "layer4.2.bn3.running_var",
    "layer1.0.downsample.0.weight",
    *(f"layer1.0.downsample.1.{part}" for part in BN),
    "layer2.0.downsample.1.running_mean",
    "fc.weight",
    "fc.bias",
]
COUNTERS = ["bn1.num_batches_tracked", "layer1.0.downsample.1.num_batches_tracked"]
# timm's ResNet-D, whose names are ours too.
TIMM_D = [
    *("conv1.0.weight", "conv1.1.bias", "conv1.3.weight", "conv1.4.weight", "conv1.6.weight"),
    *("bn1.weight", "layer1.0.downsample.1.weight", "layer1.0.downsample.2.weight"),
    *("layer2.0.downsample.1.weight", "layer2.0.downsample.2.weight", "fc.weight"),
]


@pytest.mark.parametrize("names", [TORCHVISION, TIMM_D], ids=["torchvision", "timm"])
def test_torchvisions_and_timms_names_are_ours(names):
    check({name: name for name in names}, "torchvision", COUNTERS)


# timm's ResNet v2, and its form D, with our names.
TIMM_V2 = {
    "stem.conv.weight": "conv1.weight",
    **{f"stages.0.blocks.0.norm1.{part}": f"layer1.0.bn1.{part}" for part in BN},
    "stages.0.blocks.0.conv1.weight": "layer1.0.conv1.weight",
    "stages.0.blocks.0.downsample.conv.weight": "layer1.0.downsample.0.weight",
    "stages.2.blocks.22.norm3.running_var": "layer3.22.bn3.running_var",
    "stages.3.blocks.2.conv3.weight": "layer4.2.conv3.weight",
    "norm.weight": "norm.weight",
    "head.fc.weight": "fc.weight",
    "head.fc.bias": "fc.bias",
}
TIMM_V2_D = {
    "stem.conv1.weight": "conv1.0.weight",
    "stem.norm1.bias": "conv1.1.bias",
    "stem.conv2.weight": "conv1.3.weight",
    "stem.norm2.running_mean": "conv1.4.running_mean",
    "stem.conv3.weight": "conv1.6.weight",
    "stages.0.blocks.0.norm1.weight": "layer1.0.bn1.weight",
    "stages.1.blocks.0.norm2.weight": "layer2.0.bn2.weight",
    "stages.1.blocks.0.downsample.conv.weight": "layer2.0.downsample.1.weight",
    "head.fc.bias": "fc.bias",
}


@pytest.mark.parametrize("names", [TIMM_V2, TIMM_V2_D], ids=["7x7", "D"])
def test_timms_v2(names):
    check(names, "timm_v2", ["norm.num_batches_tracked"])


def test_timms_v2_has_a_convolution_for_a_classifier():
    given = tensors(TIMM_V2)
    given["head.fc.weight"] = np.arange(12, dtype=np.float32).reshape(3, 4, 1, 1)
    found = in_our_shapes("timm_v2", translate(given).tensors)["fc.weight"]
    assert np.array_equal(found, np.arange(12).reshape(3, 4))


def test_the_wrapper_of_data_parallel_is_taken_off():
    expected = {f"module.{name}": name for name in TORCHVISION}
    check(expected, "torchvision", [f"module.{name}" for name in COUNTERS])
    check({"module.backbone.bn1.bias": "bn1.bias", "module.head.fc.bias": "fc.bias"}, "mmpretrain")
    check({"module.linear.weight": "fc.weight"}, "cifar")


def test_a_part_called_module_is_no_wrapper():
    names = ["module.conv1.weight", "fc.weight", "layer1.module.weight"]
    check({name: name for name in names}, "torchvision")
    check({"module.module.fc.bias": "module.fc.bias"}, "torchvision")  # one wrapper


def test_mmpretrains_names():
    expected = {
        name if name.startswith("fc.") else f"backbone.{name}": name for name in TORCHVISION
    }
    expected = {
        f"head.{ours}" if ours[:3] == "fc." else name: ours for name, ours in expected.items()
    }
    assert expected["backbone.layer1.0.downsample.0.weight"] == "layer1.0.downsample.0.weight"
    assert expected["head.fc.bias"] == "fc.bias"
    check(expected, "mmpretrain", [f"backbone.{name}" for name in COUNTERS])


def test_mmpretrains_deep_stem_has_timms_numbers():
    """Convolutions at 0, 3 and 6 of the sequence, normalisations at 1 and 4 and after it."""
    expected = {}
    for index, (conv, bn) in enumerate(
        [("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")]
    ):
        expected[f"backbone.stem.{index}.conv.weight"] = f"{conv}.weight"
        for part in BN:
            expected[f"backbone.stem.{index}.bn.{part}"] = f"{bn}.{part}"
    check(expected, "mmpretrain", ["backbone.stem.2.bn.num_batches_tracked"])


def shortcut(stage, conv, bn):
    return [
        f"layer{stage}.0.downsample.{conv}.weight",
        *(f"layer{stage}.0.downsample.{bn}.{part}" for part in BN),
    ]


def test_the_shortcuts_of_resnet_d_are_numbered_with_a_pool_in_every_stage():
    """MMPreTrain's first stage has no pool, and so begins with 0; ours all begin with 1."""
    theirs = shortcut(1, 0, 1) + shortcut(2, 1, 2) + shortcut(3, 1, 2) + shortcut(4, 1, 2)
    ours = [name for stage in (1, 2, 3, 4) for name in shortcut(stage, 1, 2)]
    given = {f"backbone.{name}": our for name, our in zip(theirs, ours)}
    assert D_MARK in given
    check(given, "mmpretrain", ["backbone.layer1.0.downsample.1.num_batches_tracked"])
    backwards = dict(reversed(list(given.items())))
    check(backwards, "mmpretrain")
    check({f"module.{name}": our for name, our in given.items()}, "mmpretrain")


def test_the_shortcuts_of_other_networks_keep_their_numbers():
    theirs = [name for stage in (1, 2, 3, 4) for name in shortcut(stage, 0, 1)]
    check({f"backbone.{name}": name for name in theirs}, "mmpretrain")
    bare = shortcut(1, 0, 1) + shortcut(2, 1, 2)  # not MMPreTrain's
    check({name: name for name in bare}, "torchvision")


def test_names_of_the_cifar_networks():
    names = ["conv1.weight", "bn1.running_var", "layer3.2.bn2.bias"]
    expected = {**{name: name for name in names}, "linear.weight": "fc.weight"}
    check({**expected, "linear.bias": "fc.bias"}, "cifar", ["bn1.num_batches_tracked"])


MINDCV = {
    "conv1.weight": "conv1.weight",
    "bn1.gamma": "bn1.weight",
    "bn1.beta": "bn1.bias",
    "bn1.moving_mean": "bn1.running_mean",
    "bn1.moving_variance": "bn1.running_var",
    "layer3.5.conv2.weight": "layer3.5.conv2.weight",
    "layer3.5.bn3.moving_variance": "layer3.5.bn3.running_var",
    "layer1.0.down_sample.0.weight": "layer1.0.downsample.0.weight",
    "layer1.0.down_sample.1.gamma": "layer1.0.downsample.1.weight",
    "layer1.0.down_sample.1.moving_mean": "layer1.0.downsample.1.running_mean",
    "classifier.weight": "fc.weight",
    "classifier.bias": "fc.bias",
}
TRAINING = """
    moments.conv1.weight moments.bn1.gamma moments.classifier.bias accum.bn1.beta stat.fc.weight
    epoch_num step_num global_step learning_rate momentum scale_sense loss_scale
    current_iterator_step last_overflow_iterator_step
""".split()


def test_mindcvs_names():
    check(MINDCV, "mindcv")


def test_what_training_leaves_in_a_mindspore_checkpoint_is_dropped():
    check(MINDCV, "mindcv", TRAINING)
    check({"module.bn1.moving_mean": "bn1.running_mean"}, "mindcv", ["module.epoch_num"])
    near = ["momentum_encoder.weight", "my_learning_rate", "conv1.epoch_num", "moments"]
    check({**MINDCV, **{name: name for name in near}}, "mindcv")


@pytest.mark.parametrize("name", ["epoch_num", "moments.conv1.weight", "x_num_batches_tracked"])
def test_only_what_a_scheme_knows_is_dropped(name):
    check({"conv1.weight": "conv1.weight", name: name}, "torchvision")


def test_a_rule_is_for_its_place_in_a_name_alone():
    names = {
        "backbone.layer1.0.backbone.weight": "layer1.0.backbone.weight",
        "neck.head.fc.weight": "neck.head.fc.weight",
        "backbone.stem.3.conv.weight": "stem.3.conv.weight",
        "backbone.stem.0.conv_extra": "stem.0.conv_extra",
        "head.fc_extra": "head.fc_extra",
    }
    check(names, "mmpretrain")
    check({"linear.weight": "fc.weight", "layer1.linear.weight": "layer1.linear.weight"}, "cifar")
    check({"linear.weights": "linear.weights"}, "torchvision")
    gammas = {"bn1.moving_mean": "bn1.running_mean", "bn1.gamma_2": "bn1.gamma_2"}
    check({**gammas, "pre_classifier.bias": "pre_classifier.bias"}, "mindcv")


@pytest.mark.parametrize(
    ("first", "second", "ours"),
    [
        ("backbone.fc.weight", "head.fc.weight", "fc.weight"),
        ("backbone.conv1.weight", "conv1.weight", "conv1.weight"),
        ("backbone.stem.2.bn.bias", "backbone.bn1.bias", "bn1.bias"),
        ("linear.weight", "fc.weight", "fc.weight"),
        ("bn1.moving_mean", "bn1.running_mean", "bn1.running_mean"),
        ("layer1.0.down_sample.1.moving_mean", "layer1.0.downsample.1.moving_mean", None),
    ],
)
def test_two_names_of_one_tensor_are_refused(first, second, ours):
    ours = ours or "layer1.0.downsample.1.running_mean"
    for names in ([first, second], [second, first]):
        with pytest.raises(WeightsError) as caught:
            translate(tensors(names))
        assert str(caught.value) == f"{names[0]} and {names[1]} are the same tensor, {ours}"


def test_a_hostile_name_does_not_reach_the_terminal():
    name = "layer1.\033[2J\n" + "a" * 1000
    with pytest.raises(WeightsError) as caught:
        translate(tensors([f"backbone.{name}", name]))
    assert "\033" not in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_resnet_d_with_both_numberings_is_refused():
    names = [D_MARK, "backbone.layer1.0.downsample.1.bias", "backbone.layer1.0.downsample.2.bias"]
    with pytest.raises(WeightsError, match="are the same tensor, layer1.0.downsample.2.bias"):
        translate(tensors(names))


def test_no_tensors():
    found = translate({})
    assert (found.scheme, found.tensors, found.sources, found.dropped) == (
        "torchvision",
        {},
        {},
        (),
    )


RENAMED = {
    "torchvision": lambda name: name,
    "data parallel": lambda name: f"module.{name}",
    "cifar": lambda name: name.replace("fc.", "linear."),
    "mmpretrain": lambda name: f"head.{name}" if name[:3] == "fc." else f"backbone.{name}",
    "mindcv": lambda name: (
        name.replace("fc.", "classifier.")
        if name.startswith(("fc.", "conv1", "layer")) and "bn" not in name
        else name.replace("weight", "gamma")
        .replace("bias", "beta")
        .replace("running_mean", "moving_mean")
        .replace("running_var", "moving_variance")
    ),
}


@pytest.mark.parametrize("scheme", RENAMED)
def test_a_network_is_filled_and_what_is_left_over_is_named(scheme, random_state, same):
    model = get_model("resnet20_cifar")
    file = {RENAMED[scheme](name): value for name, value in random_state.items()}
    fill(model, Weights("a file", translate(file).tensors))
    assert same(model, random_state)
    extra = RENAMED[scheme]("layer9.0.conv1.weight")
    more = translate({**file, extra: np.zeros(1, np.float32)})
    with pytest.raises(WeightsError, match="has layer9.0.conv1.weight besides"):
        fill(model, Weights("a file", more.tensors))
    del file[RENAMED[scheme]("layer2.1.bn2.running_var")]
    with pytest.raises(WeightsError, match="lacks layer2.1.bn2.running_var;"):
        fill(model, Weights("a file", translate(file).tensors))
