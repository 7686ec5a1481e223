import pytest
import yaml

from official.vision.classification.engine.recipe import (
    FOLDER,
    dump_recipe,
    load_recipe,
    override,
    parse_recipe,
)
from official.vision.classification.errors import UsageError

MINIMAL = {"epochs": 2, "batch_size": 4, "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_folder_is_valid(path):
    assert load_recipe(path.stem) == load_recipe(str(path))


@pytest.mark.parametrize("name", ["megengine_naiveaug", "megengine_fbaug"])
def test_published_recipes_state_what_megengine_models_did(name):
    """Read as plain YAML, not through the schema."""
    recipe = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert recipe["epochs"] == 90
    assert recipe["batch_size"] == 64
    assert recipe["optimizer"] == {
        "type": "sgd",
        "lr": 0.025,
        "lr_per": "device",
        "momentum": 0.9,
        "weight_decay": 0.0001,
    }
    assert recipe["schedule"] == {
        "type": "multistep",
        "milestones": [30, 60, 80],
        "gamma": 0.1,
        "warmup_epochs": 5,
    }
    assert recipe["augment"] == {
        "crop": "resized",
        "area": [0.08, 1.0],
        "flip": True,
        "jitter": 0.0 if name == "megengine_naiveaug" else 0.4,
        "interpolation": "bilinear",
    }
    assert recipe["preprocess"] == {
        "order": "BGR",
        "mean": [103.53, 116.28, 123.675],
        "std": [57.375, 57.12, 58.395],
        "resize": 256,
        "crop": 224,
        "interpolation": "bilinear",
    }


def test_defaults_are_those_of_the_seeds_readme():
    recipe = load_recipe("default")
    assert (recipe.epochs, recipe.batch_size, recipe.optimizer.lr) == (100, 32, 0.0125)
    assert recipe.optimizer.total_lr(batch_size=32, devices=8) == 0.1


def test_lr_scales_as_the_recipe_says():
    by_batch = parse_recipe({**MINIMAL, "optimizer": {"lr": 0.1, "lr_per": 256}}, "test").optimizer
    assert by_batch.total_lr(batch_size=32, devices=8) == pytest.approx(0.1)
    assert by_batch.total_lr(batch_size=64, devices=16) == pytest.approx(0.4)
    by_device = parse_recipe({**MINIMAL, "optimizer": {"lr": 0.1}}, "test").optimizer
    assert by_device.total_lr(batch_size=1, devices=3) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"optimizer": {"lr": 0.1, "weightdecay": 0}}, "did you mean 'weight_decay'?"),
        ({"epochs": 0}, "epochs: input should be greater than 0, got 0"),
        ({"epochs": "many"}, "epochs: "),
        ({"optimizer": {}}, "the key 'optimizer.lr' is missing"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: "),
        ({"optimizer": {"lr": 0.1, "lr_per": "gpu"}}, "optimizer.lr_per"),
        ({"schedule": {"milestones": [3, 2]}}, "milestones must rise"),
        ({"augment": {"area": [-1, 1]}}, "area must be two rising numbers"),
        ({"preprocess": {"ordr": "BGR"}}, "unknown key 'ordr'"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UsageError) as error:
        parse_recipe({**MINIMAL, **change}, "my.yaml")
    assert str(error.value).startswith("my.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "!!python/object/apply:os.getcwd []", "\xff"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match="bad.yaml"):
        load_recipe(str(path))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UsageError, match="did you mean megengine_fbaug"):
        load_recipe("megengine_fbaugg")


def test_epochs_keep_the_shape():
    recipe = load_recipe("megengine_fbaug").with_epochs(9)
    assert recipe.epochs == 9
    assert recipe.schedule.milestones == pytest.approx((3, 6, 8))
    assert recipe.schedule.warmup_epochs == pytest.approx(0.5)


def test_flags_override_keys_and_are_checked():
    recipe = load_recipe("default")
    changed = override(recipe, {"optimizer.lr": 0.5, "batch_size": 7})
    assert (changed.optimizer.lr, changed.batch_size) == (0.5, 7)
    assert changed.preprocess == recipe.preprocess
    with pytest.raises(UsageError, match="optimizer.momentum"):
        override(recipe, {"optimizer.momentum": 1.5})


def test_the_effective_recipe_can_be_read_back(tmp_path):
    recipe = load_recipe("shapes").with_epochs(7)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe
