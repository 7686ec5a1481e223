"""What a recipe may say, what it refuses, and what follows from it."""

import pytest

from official.vision.classification.engine.recipe import parse_recipe
from official.vision.classification.errors import UsageError

MINIMAL = {"epochs": 10, "batch_size": 4, "optimizer": {"lr": 0.1}}
LAMB = {"type": "lamb", "lr": 0.1}


def parse(**changes):
    return parse_recipe({**MINIMAL, **changes}, "my.yaml")


def test_a_recipe_that_says_little_trains_plainly():
    recipe = parse()
    assert (recipe.arch, recipe.accumulate, recipe.freeze, recipe.head_lr) == (None, 1, 0, 1)
    optimizer = recipe.optimizer
    assert (optimizer.type, optimizer.momentum, optimizer.nesterov) == ("sgd", 0.9, False)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0, None)
    assert optimizer.decay_norm and optimizer.decay_bias
    assert (recipe.loss.type, recipe.loss.label_smoothing) == ("softmax", 0)
    assert (recipe.schedule.type, recipe.schedule.milestones) == ("multistep", ())
    augment = recipe.augment
    assert (augment.rand_augment, augment.erasing, augment.mixup, augment.cutmix) == (None, 0, 0, 0)
    assert augment.aspect == (3 / 4, 4 / 3) and augment.repeats == 1
    assert recipe.ema is None and not recipe.amp.enabled and not recipe.sync_bn
    assert recipe.drop_path == 0 and not recipe.zero_init_residual


def test_sections_that_are_off_come_on_with_their_own_defaults():
    recipe = parse(ema={}, amp=True, augment={"rand_augment": {}})
    assert recipe.ema.decay == 0.9999
    assert (recipe.amp.enabled, recipe.amp.loss_scale) == (True, "dynamic")
    assert parse(amp={"loss_scale": 512}).amp.enabled
    rand_augment = recipe.augment.rand_augment
    assert (rand_augment.ops, rand_augment.magnitude, rand_augment.levels) == (2, 7, 10)
    assert (rand_augment.magnitude_std, rand_augment.probability) == (0.5, 0.5)
    assert (rand_augment.fill, rand_augment.interpolation) == ((104, 116, 124), "bicubic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: input should be greater than 0, got 0"),
        ({"epochs": True}, "epochs: input should be a number, got True"),
        ({"epochs": 10**400}, "epochs: "),
        ({"batch_size": 2.5}, "batch_size: "),
        ({"accumulate": 0}, "accumulate: "),
        ({"arch": "resnet5"}, "unknown network 'resnet5': did you mean resnet5"),
        ({"optimizer": {}}, "the key 'optimizer.lr' is missing"),
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr: "),
        ({"optimizer": {"lr": float("inf")}}, "optimizer.lr: "),
        ({"optimizer": {"lr": 10**400}}, "optimizer.lr: "),
        ({"optimizer": {"lr": 0.1, "lr_per": "gpu"}}, "lr_per: input should be 'device' or a num"),
        ({"optimizer": {"lr": 0.1, "lr_per": 0}}, "lr_per: input should be 'device' or a number"),
        ({"optimizer": {"lr": 0.1, "type": "adam"}}, "'sgd', 'lamb' or 'adamw', got 'adam'"),
        ({"optimizer": {**LAMB, "betas": [0.9, 1]}}, "optimizer.betas: "),
        ({"optimizer": {"lr": 0.1, "clip_norm": 0}}, "optimizer.clip_norm: "),
        ({"optimizer": {"lr": 0.1, "clip_norm": True}}, "optimizer.clip_norm: "),
        ({"optimizer": {"lr": 0.1, "weight_decay": -1}}, "optimizer.weight_decay: "),
        ({"schedule": {"milestones": [3, 2]}}, "milestones must rise"),
        ({"schedule": {"milestones": [0, 2]}}, "milestones must rise"),
        ({"schedule": {"warmup_start": 2}}, "schedule.warmup_start: "),
        ({"loss": {"label_smoothing": 1}}, "loss.label_smoothing: "),
        ({"loss": {"type": "focal"}}, "loss.type: "),
        ({"augment": {"area": [-1, 1]}}, "area must be two rising numbers"),
        ({"augment": {"area": [0.5]}}, "augment.area"),
        ({"augment": {"crop": {}}}, "'resized', 'padded' or 'random', got {}"),
        ({"augment": {"aspect": [2, 1]}}, "aspect must be two rising numbers"),
        ({"augment": {"mixup": -0.1}}, "augment.mixup: "),
        ({"augment": {"crop": "padded", "padding": 10**6}}, "augment.padding: "),
        ({"augment": {"erasing": 1.5}}, "augment.erasing: "),
        ({"augment": {"repeats": 0}}, "augment.repeats: "),
        ({"augment": {"rand_augment": True}}, "rand_augment: expected keys and values, got True"),
        ({"augment": {"rand_augment": {"magnitude": 11}}}, "magnitude 11 is above levels 10"),
        ({"augment": {"rand_augment": {"fill": [0, 0, 256]}}}, "augment.rand_augment.fill: "),
        ({"drop_path": 1}, "drop_path: "),
        ({"ema": {"decay": 1}}, "ema.decay: "),
        ({"amp": {"loss_scale": "static"}}, "loss_scale: input should be 'dynamic' or a number"),
        ({"amp": {"loss_scale": 0}}, "loss_scale: input should be 'dynamic' or a number"),
        ({"amp": {"loss_scale": float("inf")}}, "loss_scale: input should be 'dynamic' or a num"),
        ({"freeze": 6}, "freeze: "),
        ({"head_lr": 0}, "head_lr: "),
        ({"preprocess": {"ordr": "BGR"}}, "unknown key 'ordr'"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    with pytest.raises(UsageError) as error:
        parse(**change)
    assert str(error.value).startswith("my.yaml: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"optimizer": {**LAMB, "momentum": 0.9}},
            "my.yaml: optimizer: 'momentum' belongs to type sgd, and type is lamb",
        ),
        (
            {"optimizer": {**LAMB, "type": "adamw", "nesterov": False}},
            "my.yaml: optimizer: 'nesterov' belongs to type sgd, and type is adamw",
        ),
        (
            {"optimizer": {"lr": 0.1, "betas": [0.9, 0.999]}},
            "my.yaml: optimizer: 'betas' belongs to type lamb and adamw, and type is sgd",
        ),
        (
            {"optimizer": {"lr": 0.1, "eps": 1e-8}},
            "my.yaml: optimizer: 'eps' belongs to type lamb and adamw, and type is sgd",
        ),
        (
            {"optimizer": {"lr": 0.1, "momentum": 0, "nesterov": True}},
            "my.yaml: optimizer: 'nesterov' needs a momentum above 0",
        ),
        (
            {"schedule": {"type": "cosine", "milestones": [3]}},
            "my.yaml: schedule: 'milestones' belongs to type multistep, and type is cosine",
        ),
        (
            {"schedule": {"type": "cosine", "gamma": 0.5}},
            "my.yaml: schedule: 'gamma' belongs to type multistep, and type is cosine",
        ),
        (
            {"schedule": {"final_lr": 0}},
            "my.yaml: schedule: 'final_lr' belongs to type cosine, and type is multistep",
        ),
        (
            {"schedule": {"every": "step"}},
            "my.yaml: schedule: 'every' belongs to type cosine, and type is multistep",
        ),
        (
            {"schedule": {"type": "cosine", "final_lr": 0.2}},
            "my.yaml: schedule.final_lr 0.2 is above optimizer.lr 0.1",
        ),
        (
            {"schedule": {"warmup_epochs": 1, "warmup_shape": "constant"}},
            "my.yaml: schedule: a constant warm-up needs a 'warmup_start' above 0, or nothing "
            "learns",
        ),
        (
            {"schedule": {"warmup_epochs": 10}},
            "my.yaml: schedule.warmup_epochs 10 leaves nothing of epochs 10; the flag --epochs "
            "shortens both",
        ),
        (
            {"augment": {"crop": "padded", "area": [0.5, 1]}},
            "my.yaml: augment: 'area' belongs to crop resized, and crop is padded",
        ),
        (
            {"augment": {"crop": "random", "interpolation": "bicubic"}},
            "my.yaml: augment: 'interpolation' belongs to crop resized, and crop is random",
        ),
        (
            {"augment": {"padding": 4}},
            "my.yaml: augment: 'padding' belongs to crop padded, and crop is resized",
        ),
        (
            {"augment": {"interpolation": "area", "library": "pillow"}},
            "my.yaml: augment: area is an interpolation of cv2, not of pillow",
        ),
        (
            {"augment": {"interpolation": "area"}, "preprocess": {"library": "pillow"}},
            "my.yaml: augment: area is an interpolation of cv2, not of pillow",
        ),
        (
            {"augment": {"crop": "random"}, "preprocess": {"crop": None}},
            "my.yaml: augment.crop random needs preprocess.crop, its size",
        ),
        (
            {"augment": {"mixup": 0.2}, "batch_size": 1},
            "my.yaml: augment.mixup needs two images or more, and batch_size is 1",
        ),
        (
            {"augment": {"cutmix": 1}, "batch_size": 1},
            "my.yaml: augment.cutmix needs two images or more, and batch_size is 1",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_line(change, message):
    with pytest.raises(UsageError) as error:
        parse(**change)
    assert str(error.value) == message


def test_what_is_just_within_is_taken():
    assert parse(schedule={"warmup_epochs": 9.99}).schedule.warmup_epochs == 9.99
    assert parse(schedule={"type": "cosine", "final_lr": 0.1}).schedule.final_lr == 0.1
    assert parse(augment={"rand_augment": {"magnitude": 10}}).augment.rand_augment.magnitude == 10
    assert parse(augment={"cutmix": 1}, batch_size=2).augment.cutmix == 1
    assert parse(batch_size=1).batch_size == 1
    assert parse(freeze=5).freeze == 5
    assert parse(schedule={"warmup_shape": "constant"}).schedule.warmup_epochs == 0


def test_lr_scales_as_the_recipe_says():
    by_batch = parse(optimizer={"lr": 0.1, "lr_per": 256}, batch_size=32)
    assert by_batch.total_lr(devices=8) == pytest.approx(0.1)
    assert by_batch.total_lr(devices=16) == pytest.approx(0.2)
    by_device = parse(optimizer={"lr": 0.1}, batch_size=1)
    assert by_device.total_lr(devices=3) == pytest.approx(0.3)
    assert by_device.optimizer.total_lr(batch_size=64, devices=3) == pytest.approx(0.3)


@pytest.mark.parametrize("lr_per", ["device", 256])
def test_steps_that_accumulate_count_as_devices(lr_per):
    """Goyal et al. (arXiv:1706.02677): the rate follows the images that make an update."""
    alone = parse(optimizer={"lr": 0.1, "lr_per": lr_per}, batch_size=32, accumulate=8)
    eight = parse(optimizer={"lr": 0.1, "lr_per": lr_per}, batch_size=32)
    assert alone.total_lr(devices=1) == eight.total_lr(devices=8)
    assert eight.total_lr(devices=8) != eight.total_lr(devices=1)


def test_epochs_keep_the_shape():
    recipe = parse(
        epochs=90, schedule={"milestones": [30, 60, 80], "warmup_epochs": 5}, optimizer={"lr": 1}
    ).with_epochs(9)
    assert recipe.epochs == 9
    assert recipe.schedule.milestones == pytest.approx((3, 6, 8))
    assert recipe.schedule.warmup_epochs == pytest.approx(0.5)
    assert recipe.optimizer.lr == 1


@pytest.mark.parametrize(
    ("preprocess", "size"),
    [
        ({"crop": 160}, 160),
        ({"crop": None, "resize": 96}, 96),
        ({"crop": None, "resize": None}, 224),
    ],
)
def test_the_size_of_a_training_image(preprocess, size):
    assert parse(preprocess=preprocess).train_size == size
    augment = {"size": 48}
    assert parse(preprocess=preprocess, augment=augment).train_size == 48


@pytest.mark.parametrize("crop", ["random", "padded"])
def test_only_parts_that_are_scaled_have_a_size_of_their_own(crop):
    with pytest.raises(UsageError, match="'size' belongs to crop resized"):
        parse(augment={"crop": crop, "size": 48})


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"erasing_area": [0.4, 0.2]}, "rising"),
        ({"trivial_augment": {"fill": [0, 0, 256]}}, "from 0 to 255"),
        ({"trivial_augment": {"levels": 3}}, "levels"),
        ({"size": 0}, "augment.size"),
    ],
)
def test_what_augmentations_refuse(augment, message):
    with pytest.raises(UsageError, match=message):
        parse(augment=augment)
