import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml

from official.vision.classification.data.augmentation.mixing import Mix, draw_mix
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.sampler import epoch_order
from official.vision.classification.distributed.launch import Topology
from official.vision.classification.engine.recipe import load_recipe, override, parse_recipe
from official.vision.classification.errors import DataError, UsageError, UserError
from official.vision.classification.training import dry_run as module
from official.vision.classification.training.dry_run import dry_run, names_of
from official.vision.classification.training.trainer import TrainConfig
from official.vision.classification.zoo.models import get_model
from tests.scripts import load_script

BORDER = 4  # pixels between the images on the sheet

# Nothing random is left, and nothing is resized: the pictures are as they are on the disk.
AS_THEY_ARE = {
    "augment.crop": "padded",
    "augment.padding": 0,
    "augment.flip": False,
    "augment.jitter": 0.0,
    "preprocess.resize": 20,
    "preprocess.crop": 20,
}


@pytest.fixture()
def told(config, capsys):
    """What a dry run with these changes says: its recipe, and the lines after it by their key."""

    def run(changes=None, **more):
        changed = replace(config, recipe=override(config.recipe, changes or {}), **more)
        assert dry_run(changed) == 0
        text, _, rest = capsys.readouterr().out.partition("data: ")
        lines = [line.partition(": ") for line in f"data: {rest}".splitlines()]
        found = {key: value for key, _, value in lines if key != "estimate"}
        found["estimates"] = [value for key, _, value in lines if key == "estimate"]
        return parse_recipe(yaml.safe_load(text), "told"), found

    return run


def numbers(text):
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?(?:e-?\d+)?", text)]


def test_the_recipe_is_the_one_that_would_be_used(told, config):
    changes = {"augment.mixup": 0.2, "ema.decay": 0.9, "optimizer.type": "lamb"}
    recipe, _ = told(changes)
    assert recipe == override(config.recipe, changes)


def test_sizes_of_one_device(told):
    """24 images, of which three batches of 8 make an epoch, and 15 to test."""
    _, lines = told()
    assert lines["data"] == "24 training and 15 validation images, 3 classes"
    assert lines["steps"] == "3 per epoch, 12 in all, 8 images each on 1 device"
    assert lines["learning rate"] == "0.05 at its highest"
    parameters = sum(
        p.numpy().size for p in get_model("resnet20_cifar", num_classes=3).parameters()
    )
    assert f" {parameters / 1e6:.2f} M parameters" in lines["network"]
    assert lines["network"].startswith("resnet20_cifar, ")
    assert lines["network"].endswith("multiply-adds per image at 16 px")


def test_sizes_of_several_devices(told):
    """Twice 2 images on 3 devices: 12 images a step, and a rate for as many devices."""
    changes = {"batch_size": 2, "accumulate": 2, "optimizer.lr_per": 4}
    _, lines = told(changes, topology=Topology(ngpus=3))
    assert lines["steps"] == "2 per epoch, 8 in all, 12 images each on 3 devices"
    assert lines["learning rate"] == "0.15 at its highest"  # 0.05 * 12 / 4
    _, lines = told({"batch_size": 2}, topology=Topology(ngpus=2, nodes=3))
    assert lines["steps"] == "2 per epoch, 8 in all, 12 images each on 6 devices"
    assert lines["learning rate"] == "0.3 at its highest"


def test_multiply_adds_are_those_of_the_size(told):
    """The papers' 0.56 G at 32 pixels; twice the edge takes four times as many."""
    for edge, expected in ((32, 0.56), (64, 2.22)):
        sizes = {"preprocess.resize": edge, "preprocess.crop": edge, "augment.padding": 32}
        _, lines = told(sizes, arch="resnet18_cifar")
        _, parameters, multiply_adds, pixels = numbers(lines["network"].replace("resnet", ""))
        assert parameters == pytest.approx(11.17, abs=0.01)
        assert multiply_adds == pytest.approx(expected, abs=0.01)
        assert pixels == edge


def test_estimates_come_from_the_faster_of_two_steps_with_two_images(told, monkeypatch):
    """Seconds: 5 for the first step, 1 for the second. Memory: 1 GB before them, 1.5 GB after."""
    clock, memory = iter([0.0, 5.0, 10.0, 11.0]), iter([1.0e9, 1.5e9])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(module, "_memory", lambda device: next(memory))
    _, lines = told()
    assert lines["estimates"] == [
        "2.0 images/s on a CPU, so 12.0 seconds per epoch and 48.0 seconds in all, without the "
        "loader",
        "3.0 GB of memory at a batch of 8",
    ]


def test_measured_estimates_are_positive(told):
    _, lines = told()
    time, memory = lines["estimates"]
    assert numbers(time)[0] > 0
    assert 0 < numbers(memory)[0] < 64


def test_devices_share_an_epoch(told, monkeypatch):
    monkeypatch.setattr(module, "duration", lambda seconds: f"{seconds:.6f} s")
    _, lines = told({"batch_size": 2}, topology=Topology(ngpus=3))
    rate, epoch, _ = numbers(lines["estimates"][0])
    assert epoch == pytest.approx(24 / rate / 3, rel=0.05 / rate + 1e-3)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 seconds"),
        (119, "119.0 seconds"),
        (120, "2.0 minutes"),
        (7199, "120.0 minutes"),
        (7200, "2.0 hours"),
        (3 * 86400, "3.0 days"),
    ],
)
def test_durations_are_in_a_unit_of_which_there_are_two(seconds, text):
    assert module.duration(seconds) == text


LINE = 20  # pixels of a line of words below an image


def shown_images(path, count, edge, columns, lines=1):
    """The images of a sheet, row by row, at their own size; below each is something written."""
    sheet = cv2.imread(str(path))
    factor = -(-96 // edge)
    large, rows = edge * factor, -(-count // columns)
    high, wide = large + LINE * lines + BORDER, large + BORDER
    assert sheet.shape == (rows * high, columns * wide, 3)
    images = []
    for index in range(count):
        top, left = high * (index // columns), wide * (index % columns)
        words = sheet[top + large : top + high, left : left + wide]
        assert words[:, large:].min() == 255 and words[-BORDER:].min() == 255
        for line in range(lines):
            assert words[LINE * line : LINE * (line + 1), :large].min() < 150
        image = sheet[top : top + large, left : left + large]
        small = image[::factor, ::factor]
        assert np.array_equal(small.repeat(factor, 0).repeat(factor, 1), image)
        images.append(small)
    return images


def first_images(config, count):
    """What the first step sees, as it is on the disk."""
    paths = load_split(config.data, "train").paths
    return [cv2.imread(paths[index]) for index in epoch_order(24, config.seed, 0)[:count]]


@pytest.mark.parametrize("order", ["BGR", "RGB"])
@pytest.mark.parametrize(("batch", "shown", "columns"), [(8, 8, 8), (10, 10, 8), (3, 3, 3)])
def test_the_picture_is_the_first_batch(told, config, order, batch, shown, columns):
    changes = {**AS_THEY_ARE, "preprocess.order": order, "batch_size": batch}
    _, lines = told(changes)
    path = Path(config.save) / "resnet20_cifar-augmented.png"
    assert lines["augmented batch"] == str(path)
    images = shown_images(path, shown, 20, columns)
    for found, expected in zip(images, first_images(config, batch)):
        assert np.array_equal(found, expected)


def test_the_picture_is_resized_as_the_recipe_says(told, config):
    """A random crop of the whole image leaves only the resizing."""
    changes = {**AS_THEY_ARE, "preprocess.resize": 32, "preprocess.crop": 32}
    changes.update({"augment.crop": "random", "preprocess.interpolation": "bicubic"})
    del changes["augment.padding"]
    _, lines = told(changes)
    for found, image in zip(
        shown_images(lines["augmented batch"], 8, 32, 8), first_images(config, 8)
    ):
        assert np.array_equal(found, cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_the_picture_shows_mixed_images(told, config, kind):
    _, lines = told({**AS_THEY_ARE, f"augment.{kind}": 1.0})
    images = np.stack(first_images(config, 8)).astype(np.float64)
    mix = draw_mix(config.seed, 0, 0, 8, 20, 20, **{kind: 1.0})
    other = images[mix.permutation]
    expected = mix.lam * images + (1 - mix.lam) * other
    if kind == "cutmix":
        top, bottom, left, right = mix.box
        expected = images.copy()
        expected[:, top:bottom, left:right] = other[:, top:bottom, left:right]
    found = np.stack(shown_images(lines["augmented batch"], 8, 20, 8, lines=2))
    assert np.abs(found - expected).max() <= 0.501
    assert np.abs(found - images).max() > 10


def test_names_of_mixed_images():
    plain = Mix("none", 1.0, np.arange(3), (0, 0, 0, 0))
    assert names_of([1, 0, 1], ["a_b", "c"], plain) == [["c"], ["a b"], ["c"]]
    mixed = Mix("mixup", 0.7, np.array([1, 2, 0]), (0, 0, 0, 0))
    assert names_of([1, 0, 1], ["a_b", "c"], mixed) == [
        *(["70 % c", "30 % a b"], ["70 % a b", "30 % c"], ["70 % c", "30 % c"])
    ]


def test_the_picture_shows_what_is_random(told, config):
    _, lines = told({**AS_THEY_ARE, "augment.erasing": 1.0})
    found = shown_images(lines["augmented batch"], 8, 20, 8)
    same = [np.array_equal(a, b) for a, b in zip(found, first_images(config, 8))]
    assert not any(same)


def test_it_writes_the_picture_and_nothing_else(told, config, tmp_path):
    before = set(tmp_path.rglob("*"))
    told()
    picture = tmp_path / "run" / "resnet20_cifar-augmented.png"
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "run", picture}


def test_at_most_32_images_are_shown(told, config, tiny_images, tmp_path):
    data = tmp_path / "many"
    for split in ("train", "val"):
        for name in ("blue", "green", "red"):
            (data / split / name).mkdir(parents=True)
            for copy in range(16):
                link = data / split / name / f"{copy}.png"
                link.symlink_to(tiny_images / split / name / f"{copy % 5}.png")
    _, lines = told({**AS_THEY_ARE, "batch_size": 48}, data=str(data))
    assert lines["steps"] == "1 per epoch, 4 in all, 48 images each on 1 device"
    assert len(shown_images(lines["augmented batch"], 32, 20, 8)) == 32


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"num_classes": 4}, UsageError, "--num-classes 4: .* has 3 class folders"),
        ({"data": "/nowhere"}, DataError, "/nowhere: no such folder"),
        ({"topology": Topology(ngpus=4)}, DataError, "do not fill one batch of 8 on each of 4"),
        ({"save": "/proc/none"}, UserError, "augmented.png: cannot be written: .*choose --save"),
    ],
)
def test_what_would_stop_the_run(config, changes, error, message):
    with pytest.raises(error, match=message):
        dry_run(replace(config, **changes))


def test_stages_that_the_network_does_not_have(config):
    with pytest.raises(UsageError, match="freeze: 5, but this network has 4 stages"):
        dry_run(replace(config, recipe=override(config.recipe, {"freeze": 5})))


def test_a_class_that_is_only_tested(config, tiny_images, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "val").symlink_to(tiny_images / "val")
    (data / "train").mkdir()
    for name in ("green", "red"):
        (data / "train" / name).symlink_to(tiny_images / "train" / name)
    with pytest.raises(DataError, match="class folders .blue. are not among"):
        dry_run(replace(config, data=str(data)))


class TestFlags:
    """What train.py makes of its flags, seen through --dry-run."""

    @pytest.fixture()
    def config_of(self, monkeypatch):
        def parse(*arguments) -> TrainConfig:
            script = load_script("train.py")
            found = []
            monkeypatch.setattr(script, "dry_run", lambda config: found.append(config) or 0)
            assert script.main([*map(str, arguments), "--dry-run"]) == 0
            return found[0]

        return parse

    @pytest.fixture()
    def refused(self, capsys):
        def parse(*arguments):
            code = load_script("train.py").main([*arguments, "--dry-run"])
            (line,) = capsys.readouterr().err.splitlines()
            return code, line

        return parse

    def test_set_changes_any_key(self, config_of):
        sets = ["optimizer.nesterov=true", "augment.rand_augment.magnitude=3", "ema.decay=0.5"]
        sets += ["preprocess.crop=96", "schedule.milestones=[10, 20.5]", "accumulate = 2"]
        flags = [flag for each in sets for flag in ("--set", each)]
        recipe = config_of("-c", "resnet18_8xb32_in1k", *flags).recipe
        assert recipe.optimizer.nesterov is True
        assert recipe.augment.rand_augment.magnitude == 3
        assert recipe.ema.decay == 0.5
        assert (recipe.preprocess.resize, recipe.preprocess.crop) == (256, 96)
        assert recipe.schedule.milestones == (10, 20.5)
        assert recipe.accumulate == 2

    def test_the_last_set_wins_and_set_wins_over_flags(self, config_of):
        flags = ["-b", 7, "--set", "batch_size=8", "--set", "batch_size=9", "--lr", 3]
        recipe = config_of(*flags).recipe
        assert (recipe.batch_size, recipe.optimizer.lr) == (9, 3)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("optimizer.nestrov=true", "did you mean 'optimizer.nesterov'?"),
            ("mixup=0.2", "did you mean 'augment.mixup'?"),
            ("batchsize=2", "did you mean 'batch_size'?"),
            ("batch_size", "expected KEY=VALUE"),
            ("batch_size=many", "batch_size: "),
            ("batch_size=[1", "not readable as YAML"),
            ("optimizer.type=sdg", "'sgd', 'lamb' or 'adamw'"),
            ("arch=resnet19", "did you mean resnet18"),
        ],
    )
    def test_set_names_what_it_does_not_know(self, refused, text, message):
        code, line = refused("--set", text)
        assert code == 2
        assert message in line

    @pytest.mark.parametrize(
        ("flags", "arch", "epochs"),
        [
            ("-c resnet50_8xb16_cifar100", "resnet50_cifar", 200),
            ("-c resnet50_8xb16_cifar100 --arch resnet18_cifar", "resnet18_cifar", 200),
            ("--arch resnet50_8xb16_cifar100", "resnet50_cifar", 200),
            ("--arch resnet50_8xb16_cifar100 -c resnet20_cifar_he2015", "resnet50_cifar", 164),
            ("-c default", "resnet18", 100),
            ("-c default --set arch=resnet34", "resnet34", 100),
        ],
    )
    def test_which_network_and_which_recipe(self, config_of, flags, arch, epochs):
        config = config_of(*flags.split())
        assert (config.arch, config.recipe.arch) == (arch, arch)
        assert config.recipe.epochs == epochs

    def test_a_row_takes_its_whole_recipe(self, config_of):
        name = "resnet50_8xb256-rsb-a2-300e_in1k"
        assert config_of("--arch", name).recipe == load_recipe(name)

    def test_the_rest_of_the_flags_arrive(self, config_of):
        flags = "--save-every 7 --keep 3 --tensorboard --seed 4 --resume auto -p 9 -j 3".split()
        config = config_of(*flags, "--save", "x", "--data", "y", "--num-classes", 5)
        assert (config.save_every, config.keep, config.trackers) == (7, 3, ("tensorboard",))
        assert (config.seed, config.resume, config.print_freq, config.workers) == (4, "auto", 9, 3)
        assert (config.save, config.data, config.num_classes) == ("x", "y", 5)
