"""Every file in official/recipes through train.py: what it would do, and the first steps of it.

Only what takes long is made smaller: the images, the depth of networks of 50 layers and more, and
for the steps also the batch and the number of epochs, and with it warm-up and milestones; some dry
runs are of the whole. Checkpoints, which would be gigabytes, are looked at instead of written;
``tests/vision/classification/training`` is about them.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from official.vision.classification.engine.recipe import load_recipe, parse_recipe
from official.vision.classification.resnet.model import STAGES
from official.vision.classification.training import trainer
from official.vision.classification.training.optimizers import LAMB
from official.vision.classification.training.trainer import Trainer
from tests.scripts import load_script

FOLDER = Path(__file__).resolve().parents[1] / "official" / "recipes"
ALL = sorted(path.stem for path in FOLDER.glob("*.yaml"))


def once(names):
    """Of torchvision's second and timm's, which differ in the network alone, one for each way."""
    seen = []
    for name in names:
        trained = load_recipe(name).model_copy(update={"arch": None})
        if not name.endswith(("tv2_in1k", "a1_in1k", "a2_in1k", "a3_in1k")) or trained not in seen:
            yield name
        seen.append(trained)


NAMES = list(once(ALL))
STEPS = 2  # in the whole of a run here
BATCH = 4
WHOLE = ("resnet18_8xb32_in1k", "resnet50_8xb32_in1k", "resnet110_cifar_he2015", "shapes")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes: 8 pictures to train on, 2 to test; and a folder that fills the largest batch."""
    root = tmp_path_factory.mktemp("recipes")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 1)):
        for label, name in enumerate(("dark", "light")):
            folders = [root / size / split / name for size in ("few", "many")]
            for folder in folders:
                folder.mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(0, 128, (36, 40, 3)) + 127 * label
                path = folders[0] / f"{index}.png"
                cv2.imwrite(str(path), picture.astype(np.uint8))
            for index in range(128 if split == "train" else 1):
                (folders[1] / f"{index}.png").symlink_to(folders[0] / f"{index % count}.png")
    return root


def sizes(name):
    """Flags that make images small: 32 pixels, and 16 for networks that begin at full size."""
    edge = 16 if "cifar" in name or name == "shapes" else 32
    resize = [edge + 4, edge + 4] if name.endswith("_cub") else edge + 4
    own = ["--set", f"augment.size={edge - 4}"] if load_recipe(name).augment.size else []
    return [*own, "--set", f"preprocess.resize={resize}", "--set", f"preprocess.crop={edge}"]


def flags(name, data, save):
    arch = ["--arch", "resnet20_cifar"] if name == "shapes" else []
    return ["--data", str(data), "-c", name, "--save", str(save), "--device", "cpu", *arch]


@pytest.fixture()
def shallow(monkeypatch):
    """One block per stage in place of 50 layers and more."""
    for depth in (50, 101, 152):
        monkeypatch.setitem(STAGES, depth, (1, 1, 1, 1))


@pytest.mark.parametrize("name", NAMES)
def test_dry_run(name, images, tmp_path, capsys, request):
    smaller = []
    if name not in WHOLE:  # two images through each of the others take minutes in all
        smaller = sizes(name)
        request.getfixturevalue("shallow")
    recipe = load_recipe(name)
    batch = min(recipe.batch_size, 128)  # of the 256 images that there are
    smaller += [] if batch == recipe.batch_size else ["-b", str(batch)]
    command = [*flags(name, images / "many", tmp_path), *smaller, "--dry-run"]
    assert load_script("train.py").main(command) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    text, _, rest = captured.out.partition("data: ")
    shown = parse_recipe(yaml.safe_load(text), name)
    assert shown.arch == recipe.arch or (recipe.arch is None and shown.arch is not None)
    same = {"arch": recipe.arch, "preprocess": recipe.preprocess, "augment": recipe.augment}
    assert shown.model_copy(update={**same, "batch_size": recipe.batch_size}) == recipe
    size = shown.augment.size
    assert shown.augment.model_copy(update={"size": recipe.augment.size}) == recipe.augment
    assert (size is None) == (recipe.augment.size is None)
    assert f" {256 // batch} per epoch, " in rest
    assert f"{batch} images each on 1 device" in rest
    (picture,) = tmp_path.iterdir()
    sheet = cv2.imread(str(picture))
    edge = size or shown.preprocess.crop
    edge *= -(-96 // edge)  # enlarged by whole pixels
    assert sheet.shape[1] == min(8, batch) * (edge + 4)


@pytest.fixture()
def saved(monkeypatch):
    """What would have been written: the state after the run."""
    found = {}

    def save(path, tensors, progress):
        found.update(progress=progress)

    build, collect = Trainer._build_model, Trainer._collect_tensors

    def collected(self):
        found.update(weights=self.model.state_dict(), optimizer=self.train_step.optimizer)
        return collect(self)

    def built(self, device):
        model = build(self, device)
        found["start"] = {name: value.copy() for name, value in model.state_dict().items()}
        return model

    monkeypatch.setattr(Trainer, "_build_model", built)
    monkeypatch.setattr(Trainer, "_collect_tensors", collected)
    monkeypatch.setattr(trainer, "save_checkpoint", save)
    monkeypatch.setattr(trainer, "save_weights", lambda *args: None)
    monkeypatch.setattr(trainer, "draw_curves", lambda folder: None)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_first_steps(name, images, tmp_path, shallow, saved):
    command = [*flags(name, images / "few", tmp_path), *sizes(name), "--epochs", "1"]
    command += ["-b", str(BATCH), "--print-freq", "1", "--workers", "1"]
    assert load_script("train.py").main(command) == 0
    (folder,) = tmp_path.iterdir()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    *steps, test = [json.loads(line) for line in lines]
    assert [row["step"] for row in steps] == [1, 2] == list(range(1, STEPS + 1))
    for row in steps:
        assert 0 < row["loss"] < 100
    assert test["val_loss"] > 0

    recipe = load_recipe(name)
    rate = recipe.optimizer.total_lr(BATCH, 1)
    assert max(row["lr"] for row in steps) <= rate * (1 + 1e-9)
    assert steps[1]["lr"] > 0
    assert saved["progress"].step == STEPS
    weights, start = saved["weights"], saved["start"]
    assert all(np.isfinite(value).all() for value in weights.values())
    moved = [name for name in weights if not np.array_equal(weights[name], start[name])]
    assert {"fc.weight", "fc.bias"} <= set(moved)
    assert isinstance(saved["optimizer"], LAMB) == (recipe.optimizer.type == "lamb")
