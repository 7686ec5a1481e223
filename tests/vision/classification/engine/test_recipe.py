"""Recipes read, changed by flags and written."""

import copy
import random

import pytest
import yaml

from official.vision.classification.engine.recipe import (
    FOLDER,
    dump_recipe,
    load_recipe,
    override,
    parse_recipe,
    parse_set,
)
from official.vision.classification.errors import UsageError
from official.vision.classification.preprocess import Preprocess

MINIMAL = {"epochs": 2, "batch_size": 4, "optimizer": {"lr": 0.1}}
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
A1 = "resnet50_8xb256-rsb-a1-600e_in1k"


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_in_the_folder_is_valid(name):
    assert load_recipe(name) == load_recipe(str(FOLDER / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"optimizer": {"lr": 1, "weightdecay": 0}}, "did you mean 'optimizer.weight_decay'?"),
        ({"optimizer": {"momentun": 0.9}}, "did you mean 'optimizer.momentum'?"),
        ({"augment": {"rand_augment": {"magnitud": 3}}}, "mean 'augment.rand_augment.magnitude'?"),
        ({"ema": {"decai": 0.5}}, "unknown key 'ema.decai'; did you mean 'ema.decay'?"),
        ({"lr": 0.1}, "unknown key 'lr'; did you mean 'optimizer.lr'?"),
        ({"label_smoothing": 0.1}, "did you mean 'loss.label_smoothing'?"),
        ({"weight-decay": 0.1}, "did you mean 'optimizer.weight_decay'?"),
        ({"optimizer": {"lr": 1, "crop": 0}}, "unknown key 'optimizer.crop'; did you mean"),
        ({7: 8}, "unknown key '7'"),
        ({"a\nb": 8}, "unknown key 'a\\nb'"),
        ({"x" * 10_000: 8}, "unknown key"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_an_unknown_key_gets_the_nearest(change, message):
    with pytest.raises(UsageError) as error:
        parse_recipe({**MINIMAL, **change}, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_an_unknown_key_explains_a_missing_one():
    with pytest.raises(UsageError, match="unknown key 'epoch'"):
        parse_recipe({"epoch": 2, "batch_size": 4, "optimizer": {"lr": 0.1}}, "my.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "a: [",
        "!!python/object/apply:os.getcwd []",
        "\xff",
        "epochs: 2001-99-99",
        "epochs: &a [*a]",
        "[" * 1000,
        "? [a, {b: c}]\n: d",
        "epochs: !!binary 'x'",
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="bad.yaml") as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value)


def test_what_is_shown_of_a_value_is_short():
    nested = ["x"] * 9
    for _ in range(8):  # what references to references in YAML make: 387 million words, written out
        nested = [nested] * 9
    endless = []
    endless.append(endless)
    for value in (nested, endless, "y" * 10**6, {"z" * 10**6: 1}):
        for change in (
            {"epochs": value},
            {"optimizer": {"lr": 0.1, "type": value}},
            {"ema": value},
        ):
            with pytest.raises(UsageError) as error:
                parse_recipe({**MINIMAL, **change}, "my.yaml")
            assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text", ["epochs: 1\nepochs: 2", "optimizer: {lr: 0.1, lr: 0.2}", "1: 2\n1: 3"]
)
def test_a_key_that_is_there_twice(tmp_path, text):
    path = tmp_path / "twice.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="twice.yaml: .* is there twice"):
        load_recipe(str(path))


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UsageError, match="unknown recipe"):
        load_recipe(str(tmp_path / "folder.yaml"))
    with pytest.raises(UsageError, match="unknown recipe"):
        load_recipe("a\0b.yaml")


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean resnet101_fbaug_in1k"):
        load_recipe("resnet101_fbaugg_in1k")


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("configs/resnetv2/resnetv2_50_ascend.yaml", "resnetv2_50"),
        ("configs/resnetv2/resnetv2_101_gpu.yaml", "resnetv2_101"),
        ("configs/resnet/resnet50_8xb32_in1k.py", "resnet50_8xb32_in1k"),
        ("../mmpretrain/configs/resnet/resnet18_8xb16_cifar10.py", "resnet18_8xb16_cifar10"),
        ("official/recipes/ResNet50_fbaug_in1k.yaml", "resnet50_fbaug_in1k"),
    ],
)
def test_a_path_of_another_project_gets_the_recipe_of_that_name(path, ours):
    with pytest.raises(UsageError) as error:
        load_recipe(path)
    assert str(error.value) == f"-c {path}: no such file; did you mean -c {ours}?"


def test_a_configuration_of_mindcv(tmp_path):
    """Its keys, shortened, as mindcv 51b0636 has them in configs/resnetv2."""
    path = tmp_path / "resnetv2_50_ascend.yaml"
    path.write_text(
        "mode: 0\ndistribute: True\nnum_parallel_workers: 8\ndataset: 'imagenet'\n"
        "batch_size: 32\nmodel: 'resnetv2_50'\nepoch_size: 120\nscheduler: 'cosine_decay'\n"
    )
    with pytest.raises(UsageError) as error:
        load_recipe(str(path))
    assert str(error.value).startswith(
        f"{path}: seems to be another project's configuration: 'mode'"
    )
    assert "did you mean -c resnetv2_50? docs/migrating.md" in str(error.value)
    path.write_text("epoch: 1\nbatchsize: 2\nlr: 3")  # ours, misspelt
    with pytest.raises(UsageError, match="unknown key 'epoch'; did you mean 'epochs'"):
        load_recipe(str(path))


def test_flags_override_keys_and_are_checked():
    recipe = load_recipe("default")
    changes = {"optimizer.lr": 0.5, "batch_size": 7, "loss.type": "bce"}
    changed = override(recipe, changes)
    assert (changed.optimizer.lr, changed.batch_size, changed.loss.type) == (0.5, 7, "bce")
    assert changed.preprocess == recipe.preprocess
    assert changed.optimizer.momentum == recipe.optimizer.momentum
    assert load_recipe("default") == recipe
    assert override(recipe, {}) == recipe
    with pytest.raises(UsageError, match="flags: optimizer.momentum: .* got 1.5"):
        override(recipe, {"optimizer.momentum": 1.5})
    with pytest.raises(UsageError, match="did you mean 'optimizer.lr'"):
        override(recipe, {"optimizer.lrr": 1.5})


def test_a_change_of_kind_drops_what_only_the_old_one_had():
    recipe = load_recipe("resnet50_fbaug_in1k")
    lamb = override(recipe, {"optimizer.type": "lamb", "optimizer.eps": 1e-6})
    assert (lamb.optimizer.type, lamb.optimizer.eps) == ("lamb", 1e-6)
    assert "momentum" not in dump_recipe(lamb)
    cosine = override(recipe, {"schedule.type": "cosine"})
    assert (cosine.schedule.milestones, cosine.schedule.warmup_epochs) == ((), 5)
    padded = override(recipe, {"augment.crop": "padded", "augment.padding": 2})
    assert (padded.augment.padding, padded.augment.jitter) == (2, 0.4)
    for changes in (
        {"optimizer.type": "lamb", "optimizer.momentum": 0.9},
        {"optimizer.betas": [0.9, 0.99]},
        {"schedule": {"type": "cosine", "gamma": 0.1}},
    ):
        with pytest.raises(UsageError, match="belongs to type"):
            override(recipe, changes)
    with pytest.raises(UsageError, match="optimizer: expected keys and values, got 7"):
        override(recipe, {"optimizer.type": "lamb", "optimizer": 7})


def test_a_key_of_a_section_that_is_off_turns_it_on():
    recipe = load_recipe("default")
    assert recipe.ema is None and recipe.augment.rand_augment is None and not recipe.amp.enabled
    changes = {"ema.decay": 0.9, "augment.rand_augment.magnitude": 3, "amp.loss_scale": 64}
    changed = override(recipe, changes)
    assert changed.ema.decay == 0.9
    assert (changed.augment.rand_augment.magnitude, changed.augment.rand_augment.ops) == (3, 2)
    assert (changed.amp.enabled, changed.amp.loss_scale) == (True, 64)
    off = override(changed, {"ema": None, "amp": False, "augment.rand_augment": None})
    assert off == recipe


def test_preprocessing_is_changed_as_a_whole_or_in_part():
    recipe = load_recipe("default")
    assert override(recipe, {"preprocess.crop": 160}).preprocess.crop == 160
    swapped = override(recipe, {"preprocess.order": "RGB"}).preprocess
    assert swapped.mean == recipe.preprocess.mean[::-1]
    other = Preprocess(resize=100, crop=96)
    assert override(recipe, {"preprocess": other}).preprocess == other
    both = {"preprocess": {"resize": 100, "crop": 96}, "preprocess.crop": 64}
    assert override(recipe, both).preprocess == Preprocess(resize=100, crop=64)
    with pytest.raises(UsageError, match="crop 999 is more than resize 256"):
        override(recipe, {"preprocess.crop": 999})


def test_a_callers_values_are_not_touched():
    changes = {"optimizer": {"lr": 1.0}, "optimizer.lr": 2.0}
    assert override(load_recipe("default"), changes).optimizer.lr == 2
    assert changes == {"optimizer": {"lr": 1.0}, "optimizer.lr": 2.0}


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("optimizer.lr=0.1", "optimizer.lr", 0.1),
        ("optimizer.lr = 1e-4", "optimizer.lr", "1e-4"),
        ("augment.area=[0.2, 1]", "augment.area", [0.2, 1]),
        ("ema={decay: 0.9}", "ema", {"decay": 0.9}),
        ("ema=null", "ema", None),
        ("augment.rand_augment.ops=3", "augment.rand_augment.ops", 3),
        ("preprocess.order=RGB", "preprocess.order", "RGB"),
        ("arch=resnet50", "arch", "resnet50"),
    ],
)
def test_set_takes_a_key_and_a_value_in_yaml(text, key, value):
    assert parse_set(text) == (key, value)
    override(load_recipe("default"), dict([parse_set(text)]))  # is what override takes


def test_numbers_as_people_write_them():
    """YAML 1.1 reads 1e-4, which has no point, as a word."""
    recipe = override(load_recipe("default"), dict([parse_set("optimizer.lr=1e-4")]))
    assert recipe.optimizer.lr == 1e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer.lr", "--set optimizer.lr: expected KEY=VALUE, such as optimizer.lr=0.1"),
        ("", "expected KEY=VALUE"),
        ("lr=0.1", "--set lr=0.1: unknown key 'lr'; did you mean 'optimizer.lr'?"),
        ("optimizer.lrr=0.1", "did you mean 'optimizer.lr'?"),
        ("optimiser.lr=0.1", "did you mean 'optimizer.lr'?"),
        ("augment.magnitude=3", "did you mean 'augment.rand_augment.magnitude'?"),
        ("preprocess.meen=3", "did you mean 'preprocess.mean'?"),
        ("=3", "unknown key ''"),
        ("Optimizer.LR=1", "did you mean 'optimizer.lr'?"),
        ("early_stopping=3", "unknown key 'early_stopping'; docs/recipes.md has all"),
        ("early_stopping=3", "unknown key 'early_stopping'; docs/recipes.md has all"),
        ("augment.xyz=1", "unknown key 'augment.xyz'; docs/recipes.md has all"),
        ("optimizer.lr=[", "--set optimizer.lr=[: not readable as YAML"),
        ("optimizer.lr=!!python/name:os.system", "not readable as YAML"),
    ],
)
def test_set_that_cannot_be(text, message):
    with pytest.raises(UsageError) as error:
        parse_set(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_effective_recipe_can_be_read_back(tmp_path, name):
    recipe = load_recipe(name).with_epochs(7)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe
    assert parse_recipe(recipe.model_dump(mode="json"), "checkpoint") == recipe


def test_what_is_written_has_only_what_its_kinds_have():
    values = yaml.safe_load(dump_recipe(load_recipe(A1)))
    assert list(values)[:3] == ["arch", "epochs", "batch_size"]  # as one reads it
    assert {"betas", "eps"} < set(values["optimizer"])
    assert not {"momentum", "nesterov"} & set(values["optimizer"])
    assert "milestones" not in values["schedule"] and "final_lr" in values["schedule"]
    assert "padding" not in values["augment"] and "area" in values["augment"]


def test_random_nonsense_is_refused_or_read_back():
    """No value of any key makes anything but a recipe that can be written and read, or a line."""
    rng = random.Random(0)
    whole = load_recipe(A1).model_dump(mode="json")
    odd = [None, True, -1, 0, 1.5, 10**400, float("nan"), "", "x", [], [1], [0.5, 1], {}, {"a": 1}]
    taken = 0
    for _ in range(300):
        values = copy.deepcopy(whole)
        for _ in range(rng.randint(1, 2)):
            place = values
            while True:
                key = rng.choice(list(place))
                if isinstance(place[key], dict) and place[key] and rng.random() < 0.9:
                    place = place[key]
                else:
                    break
            place[key] = rng.choice(odd)
        try:
            recipe = parse_recipe(values, "odd")
        except UsageError as error:
            assert "\n" not in str(error)
        else:
            taken += 1
            assert parse_recipe(recipe.model_dump(mode="json"), "again") == recipe
    assert 8 < taken < 250
