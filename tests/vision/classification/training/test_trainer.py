import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from official.vision.classification.data import loader
from official.vision.classification.engine.console import read_metrics
from official.vision.classification.engine.recipe import load_recipe, override
from official.vision.classification.errors import TrainingError, UsageError, UserError
from official.vision.classification.training import resume, trainer
from official.vision.classification.training.checkpoint import read_checkpoint
from official.vision.classification.training.curves import draw_curves
from official.vision.classification.training.step import TrainingStep
from official.vision.classification.training.trainer import train
from official.vision.classification.zoo import load_weights
from official.vision.classification.zoo.trained import NetworkConfig

pytestmark = pytest.mark.usefixtures("curves")


def tensors_of(path):
    return read_checkpoint(path)[1]


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_learns_and_leaves_what_it_promises(config, folder, capsys, curves):
    assert train(replace(config, recipe=config.recipe.with_epochs(6))) == 0
    lines = capsys.readouterr().out.splitlines()
    data, kernels, results, first, *_ = lines
    assert data.startswith("data: 24 training images in ")
    assert kernels.startswith("kernels: ")
    assert results == f"results go to {folder}"
    assert first.startswith("Epoch 1 Step 0, LR 0.0000, Loss ")
    assert lines[-1] == (folder / "log.txt").read_text().splitlines()[-1]
    (end,) = (index for index, line in enumerate(lines) if line.startswith("done: best Acc@1 "))
    assert lines[end - 1].startswith("Epoch 6 Test Acc@1 ")
    assert lines[end].endswith(f"; results are in {folder}")
    assert [line.split()[2] for line in lines[-2:]] == ["test.py", "inference.py"]
    numbers = [line.split()[1] for line in lines if line.startswith("Epoch ")]
    assert numbers == sorted(numbers) and set(numbers) == set("123456")

    rows = read_metrics(folder)
    epochs = [row for row in rows if row["event"] == "epoch"]
    assert [row["epoch"] for row in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1]["val_top1"] >= 60  # chance is 33
    losses = [row["loss"] for row in rows if row["event"] == "train"]
    assert losses[-1] < losses[0]

    assert load_recipe(str(folder / "recipe.yaml")).epochs == 6
    assert curves == [folder] * 6
    weights = load_weights(folder / "best.safetensors")
    assert weights.classes == ("blue", "green", "red")
    assert weights.preprocess == config.recipe.preprocess
    progress, _ = read_checkpoint(folder / "checkpoint.safetensors")
    assert progress.step == 18
    assert progress.best_top1 == max(row["val_top1"] for row in epochs)
    assert not list(folder.glob("*.part"))


def test_curves_are_not_drawn_after_every_short_epoch(config, folder, curves, monkeypatch):
    monkeypatch.setattr(trainer, "DRAW_EVERY", 3600.0)
    assert train(replace(config, recipe=config.recipe.with_epochs(4))) == 0
    assert curves == [folder] * 2  # the first and the last


def test_the_same_seed_gives_the_same_weights_for_any_number_of_workers(config, tmp_path):
    found = []
    for workers, seed in ((0, 0), (3, 0), (0, 1)):
        save = tmp_path / f"{workers}-{seed}"
        train(replace(config, save=str(save), workers=workers, seed=seed))
        found.append(tensors_of(save / "resnet20_cifar" / "checkpoint.safetensors"))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


@pytest.mark.parametrize("stop_after", [4, 6])
def test_a_stopped_run_resumes_bit_for_bit(config, folder, tmp_path, monkeypatch, stop_after):
    """Stopped by SIGTERM in the middle of an epoch, and at its end; 12 steps in all."""
    train(config)
    straight = tensors_of(folder / "checkpoint.safetensors")
    straight_rows = read_metrics(folder)

    config = replace(config, save=str(tmp_path / "stopped"))
    folder = tmp_path / "stopped" / "resnet20_cifar"
    update = TrainingStep.__call__

    def update_and_signal(self, batch, step, rate):
        results = update(self, batch, step, rate)
        if step + 1 == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)
        return results

    monkeypatch.setattr(TrainingStep, "__call__", update_and_signal)
    assert train(config) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert read_checkpoint(folder / "checkpoint.safetensors")[0].step == stop_after

    assert train(replace(config, resume="auto", workers=0)) == 0
    assert equal(tensors_of(folder / "checkpoint.safetensors"), straight)
    for name in ("epoch", "train"):
        rows = [row for row in read_metrics(folder) if row["event"] == name]
        expected = [row for row in straight_rows if row["event"] == name]
        assert [row["lr"] for row in rows if name == "train" and row["step"] > stop_after] == [
            row["lr"] for row in expected if name == "train" and row["step"] > stop_after
        ]
    epochs = [row for row in read_metrics(folder) if row["event"] == "epoch"]
    assert epochs == [row for row in straight_rows if row["event"] == "epoch"]


def test_a_killed_run_resumes_from_its_last_checkpoint(config, folder, monkeypatch):
    """What kill -9 in the fourth epoch leaves: the second's checkpoint, and metrics beyond it."""
    second = {}
    end_epoch = trainer.Trainer._end_epoch

    def end_and_remember(self):
        end_epoch(self)
        if self.step == 6:
            second["checkpoint"] = self.folder.checkpoint.read_bytes()

    monkeypatch.setattr(trainer.Trainer, "_end_epoch", end_and_remember)
    train(config)
    path = folder / "checkpoint.safetensors"
    straight, rows = tensors_of(path), read_metrics(folder)
    path.write_bytes(second["checkpoint"])

    assert train(replace(config, resume="auto")) == 0
    assert equal(tensors_of(path), straight)

    def without_times(rows):
        return [{**row, "seconds_per_step": None} for row in rows]

    assert without_times(read_metrics(folder)) == without_times(rows)


def test_ctrl_c_saves_and_says_how_to_go_on(tiny_images, tiny_recipe, tmp_path):
    command = [sys.executable, "train.py", "--data", tiny_images, "-c", tiny_recipe, "--arch"]
    command += ["resnet20_cifar", "--epochs", "500", "--save", tmp_path / "run", "--device", "cpu"]
    root = trainer.__file__.rsplit("official", 1)[0]
    process = subprocess.Popen(
        list(map(str, command)), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "run" / "resnet20_cifar" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "SIGINT: saved step" in out.splitlines()[-1]
    assert "--resume auto" in out.splitlines()[-1]
    assert "Traceback" not in err
    assert read_checkpoint(checkpoint)[0].step > 0


def test_a_finished_run_resumes_to_nothing(config, folder, capsys):
    train(config)
    before = (folder / "checkpoint.safetensors").read_bytes()
    assert train(replace(config, resume="auto")) == 0
    assert "all 4 epochs are done" in capsys.readouterr().out
    assert (folder / "checkpoint.safetensors").read_bytes() == before


def test_a_second_run_does_not_overwrite_the_first(config, folder):
    train(config)
    before = (folder / "checkpoint.safetensors").read_bytes()
    with pytest.raises(UserError, match="--resume auto"):
        train(config)
    assert (folder / "checkpoint.safetensors").read_bytes() == before


def test_resuming_elsewhere_does_not_overwrite_the_run_that_is_there(config, folder, tmp_path):
    train(config)
    other = replace(config, save=str(tmp_path / "other"))
    train(other)
    with pytest.raises(UserError, match="holds a run already"):
        train(replace(other, resume=str(folder / "best.safetensors")))
    shorter = str(tmp_path / "new")
    assert train(replace(config, save=shorter, resume=str(folder / "checkpoint.safetensors"))) == 0


def change(key, value):
    return lambda config: {"recipe": override(config.recipe, {key: value})}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda c: {"seed": 9}, "seed is 0 there and 9 here; give the flags"),
        (change("optimizer.lr", 0.5), "one: optimizer.lr is 0.05 there and 0.5 here; give the"),
        (change("batch_size", 4), r"images per update \(.*\) is 8 there and 4 here"),
        (change("loss.label_smoothing", 0.1), "one: loss.label_smoothing is 0.0 there and 0.1"),
        (change("ema.decay", 0.9), "ema is none there and none here|ema.decay is none there and"),
        (change("preprocess.order", "RGB"), "preprocess.order is BGR there and RGB here"),
        (change("epochs", 3), "one: epochs is 4 there and 3 here"),
        (lambda c: {"recipe": c.recipe.with_epochs(2)}, "epochs is 4 there and 2 here"),
    ],
)
def test_resuming_another_run_is_refused(config, folder, change, name):
    train(config)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=name):
        train(replace(config, resume="auto", **change(config)))
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(config, folder, caplog):
    train(config)
    straight = tensors_of(folder / "checkpoint.safetensors")
    flip_a_bit(folder / "checkpoint.safetensors")
    assert train(replace(config, resume="auto")) == 0
    (warning,) = [record.message for record in caplog.records]
    assert "checkpoint.safetensors: damaged" in warning
    assert "going back to" in warning and "checkpoint-9.safetensors" in warning
    assert equal(tensors_of(folder / "checkpoint.safetensors"), straight)


def test_damaged_checkpoints_are_not_resumed(config, folder):
    train(config)
    for path in folder.glob("checkpoint*.safetensors"):
        flip_a_bit(path)
    with pytest.raises(UserError, match="checkpoint-9.safetensors: damaged"):
        train(replace(config, resume="auto"))
    elsewhere = replace(config, save=config.save + "-2", resume=str(folder / "best.safetensors"))
    with pytest.raises(UserError, match="weights only, no checkpoint"):
        train(elsewhere)


def test_a_loss_that_is_not_finite_stops_the_run(config, folder):
    recipe = override(config.recipe, {"optimizer.lr": 1e20, "schedule.warmup_epochs": 0})
    with pytest.raises(TrainingError, match=r"loss is (nan|inf) at step \d"):
        train(replace(config, recipe=recipe))
    assert not (folder / "checkpoint.safetensors").exists()


def test_fine_tuning_starts_from_a_file_with_a_new_classifier(
    config, folder, tiny_images, tmp_path, capsys
):
    train(config)
    source = folder / "best.safetensors"
    data = tmp_path / "two"
    for split in ("train", "val"):
        (data / split).mkdir(parents=True)
        for name in ("green", "red"):
            (data / split / name).symlink_to(tiny_images / split / name)
    recipe = override(config.recipe, {"optimizer.lr": 1e-12})
    train(
        replace(
            config,
            data=str(data),
            weights=NetworkConfig(model=str(source)),
            save=str(tmp_path / "fine"),
            recipe=recipe,
        )
    )
    assert (
        f"starts from {source}, which has other classes: the classifier starts anew for 2 classes"
        in capsys.readouterr().out.splitlines()
    )
    tuned = load_weights(tmp_path / "fine" / "resnet20_cifar" / "checkpoint.safetensors")
    assert tuned.classes == ("green", "red")
    assert tuned.tensors["fc.weight"].shape == (2, 64)
    start = load_weights(source).tensors["layer2.0.conv1.weight"]
    assert np.allclose(tuned.tensors["layer2.0.conv1.weight"], start, atol=1e-8)


@pytest.mark.parametrize("probe", [False, True])
def test_the_reader_of_files_is_made_before_anything_else(config, monkeypatch, probe):
    """Not between two steps: compiling it takes seconds. A probe takes images as they are."""
    made = []
    monkeypatch.setattr(loader, "part_decoder", lambda: made.append(1))
    recipe = override(config.recipe, {"augment.crop": "resized"})
    trainer.Trainer(replace(config, recipe=recipe, linear_probe=probe), "cpu")
    assert bool(made) != probe


def test_the_number_of_classes_must_be_the_folders(config):
    with pytest.raises(UsageError, match="--num-classes 4: .* has 3 class folders"):
        train(replace(config, num_classes=4))


def test_rate_per_device_and_label_smoothing_reach_the_step(config, monkeypatch):
    """One step by hand: SGD from the loss that Szegedy et al. (arXiv:1512.00567) define."""
    recipe = override(
        config.recipe,
        {
            "loss.label_smoothing": 0.1,
            "optimizer.momentum": 0.0,
            "optimizer.weight_decay": 0.0,
            "schedule.warmup_epochs": 0,
            "epochs": 1,
            "batch_size": 24,
        },
    )
    seen = {}
    update = TrainingStep.__call__

    def watched(self, batch, step, rate):
        seen["before"] = self.model.fc.bias.numpy().copy()
        self.model.train()
        seen["logits"] = self.model(self.normalize(batch.images)).numpy().astype(np.float64)
        seen["labels"] = batch.labels
        results = update(self, batch, step, rate)
        seen["after"] = self.model.fc.bias.numpy().copy()
        seen["loss"] = float(results.numpy()[0])
        return results

    monkeypatch.setattr(TrainingStep, "__call__", watched)
    train(replace(config, recipe=recipe))
    logits, labels = seen["logits"], seen["labels"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    targets = 0.9 * np.eye(3)[labels] + 0.1 / 3
    assert seen["loss"] == pytest.approx(-(targets * np.log(probabilities)).sum(1).mean(), rel=1e-4)
    expected = seen["before"] - 0.05 * (probabilities - targets).mean(0)
    assert np.allclose(seen["after"], expected, atol=1e-6)


def test_metrics_are_json_lines(config, folder):
    train(config)
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert {"event", "step", "epoch"} <= json.loads(line).keys()


def test_averaged_weights_are_tested_saved_and_drawn(config, folder):
    train(replace(config, recipe=override(config.recipe.with_epochs(1), {"ema.decay": 0.5})))
    tensors = tensors_of(folder / "checkpoint.safetensors")
    best = load_weights(folder / "best.safetensors")
    rows = read_metrics(folder)
    (tested,) = [row for row in rows if row["event"] == "epoch"]
    progress, _ = read_checkpoint(folder / "checkpoint.safetensors")
    assert progress.best_top1 == tested["average_top1"]
    assert tested["average_loss"] != tested["val_loss"]
    for name, value in best.tensors.items():
        assert np.array_equal(value, tensors[f"average.{name}"]), name
    assert not np.array_equal(best.tensors["fc.weight"], tensors["model.fc.weight"])

    with_averages = cv2.imread(str(draw_curves(folder)))
    for row in rows:
        row.pop("average_loss", None), row.pop("average_top1", None)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = (cv2.imread(str(draw_curves(folder))) != with_averages).any(axis=(0, 2))
    assert changed[:400].any() and changed[400:800].any() and not changed[800:].any()


def test_a_checkpoint_with_a_senseless_recipe_is_named(config, folder, monkeypatch):
    train(config)
    sound = resume.read_checkpoint

    def damaged(path):
        progress, tensors = sound(path)
        return replace(progress, recipe={"epochs": "many"}), tensors

    monkeypatch.setattr(resume, "read_checkpoint", damaged)
    with pytest.raises(UserError, match="checkpoint.safetensors: cannot be resumed"):
        train(replace(config, resume="auto"))
