"""The same numbers on one process and on several."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from official.vision.classification.distributed.launch import Topology, launch
from official.vision.classification.engine.recipe import load_recipe, override
from official.vision.classification.errors import TrainingError, UsageError
from official.vision.classification.training import trainer
from official.vision.classification.training.checkpoint import read_checkpoint
from official.vision.classification.training.trainer import TrainConfig

from . import jobs


def run(processes, job, *args):
    assert launch(job, Topology(ngpus=processes), *args, device_type="cpu") == 0


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def test_collectives_are_what_their_names_say(tmp_path):
    """Against numpy. The loss of the gradients is the sum over ranks of their own y²."""
    run(3, jobs.collect, tmp_path)
    found = [arrays(tmp_path / f"{number}.npz") for number in range(3)]
    values = np.stack([jobs.values_of(number) for number in range(3)])
    total, parts = values.sum(0), values.reshape(3, 3, 2, 5)  # of rank, for rank
    for number, own in enumerate(found):
        assert np.allclose(own["all_reduce_sum"], total, atol=1e-6)
        assert own["all_reduce_sum"].tobytes() == found[0]["all_reduce_sum"].tobytes()
        assert np.array_equal(own["all_reduce_max"], values.max(0))
        assert np.array_equal(own["all_reduce_min"], values.min(0))
        assert np.array_equal(own["all_gather"], values.reshape(18, 5))
        assert np.array_equal(own["all_gather_axis_1"], np.concatenate(list(values), 1))
        assert np.array_equal(own["broadcast"], values[0])
        assert np.array_equal(own["scatter"], parts[0, number])
        assert np.allclose(own["reduce_scatter_sum"], parts.sum(0)[number], atol=1e-6)
        assert np.array_equal(own["all_to_all"], parts[:, number].reshape(6, 5))
        # d/dx of sum y²: 2y comes back the way by which x went.
        assert np.allclose(own["grad_all_reduce_sum"], 6 * total, atol=1e-5)
        assert np.allclose(own["grad_all_gather"], 6 * values[number], atol=1e-5)
        expected = 2 * parts.sum(0).reshape(6, 5)
        assert np.allclose(own["grad_reduce_scatter_sum"], expected, atol=1e-5)
        assert np.allclose(own["grad_all_to_all"], 2 * values[number], atol=1e-5)
    assert np.allclose(found[0]["reduce_sum"], total, atol=1e-6)
    assert np.array_equal(found[0]["gather"], values.reshape(18, 5))
    for own in found[1:]:
        assert np.allclose(own["all_reduce_sum_of_1_and_2"], values[1:].sum(0), atol=1e-6)


def test_ranks_that_differ_are_named_on_all(tmp_path):
    run(3, jobs.disagree, tmp_path)
    for number in range(3):
        assert (tmp_path / f"{number}.txt").read_text().splitlines() == [
            "the network's weights differ between rank 0 and rank(s) 1, 2",
            "fine",
            "the network's weights differ between rank 0 and rank(s) 1, 2",  # statistics
            "fine",
            "the network's weights differ between rank 0 and rank(s) 1",
            "fine",
            "the seed differs between rank 0 and rank(s) 2",
        ]


@pytest.fixture()
def recipe(tiny_recipe):
    """Nothing that is drawn for each device by itself."""
    changes = {"sync_bn": True, "batch_size": 4, "schedule.warmup_epochs": 0}
    return override(load_recipe(str(tiny_recipe)), changes)


def test_every_image_counts_once_on_any_number_of_processes(tmp_path, recipe):
    folders = [tmp_path / "data" / "val" / name for name in ("a", "b", "c")]
    rng = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir(parents=True)
    for index in range(1001):
        image = rng.integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folders[index % 3] / f"{index}.png"), image)
    preprocess = recipe.preprocess.override({"resize": None, "crop": None})
    counts = []
    for processes in (1, 2, 3):
        run(processes, jobs.count, tmp_path, str(tmp_path / "data"), preprocess)
        found = [arrays(tmp_path / f"{processes}-{rank}.npz") for rank in range(processes)]
        assert sorted(np.concatenate([f["seen"] for f in found]).tolist()) == list(range(1001))
        counts.extend(f["counts"].tolist() for f in found)
    assert counts == [counts[0]] * 6
    assert counts[0][2] == 1001 and 200 < counts[0][0] < 500  # of three classes


def test_gradients_are_those_of_one_process_on_the_whole_batch(tmp_path, recipe):
    """Plain SGD's change of the weights, per learning rate; and SyncBatchNorm's statistics."""
    plain = {"optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0}
    recipe = override(recipe, plain)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (8, 3, 16, 16), np.uint8)
    labels = rng.integers(0, 3, 8).astype(np.int32)
    for processes, share in ((1, 8), (2, 4)):
        part = override(recipe, {"batch_size": share})
        run(processes, jobs.update_once, tmp_path, part, images, labels)
    one, first, second = (arrays(tmp_path / f"{name}.npz") for name in ("1-0", "2-0", "2-1"))
    assert first.pop("lr") == second.pop("lr") == 2 * one["lr"]  # the recipe's: per device
    one_lr = one.pop("lr")
    for name, change in one.items():
        assert np.array_equal(first[name], second[name])
        if "running" in name:
            assert np.allclose(first[name], change, atol=1e-5)
        elif "num_batches" not in name:
            gradient = change / one_lr
            error = np.abs(first[name] / (2 * one_lr) - gradient).max()
            assert error < 2e-4 * max(1, np.abs(gradient).max()), name


@pytest.fixture()
def config(tiny_images, recipe, tmp_path, monkeypatch):
    for name in ("draw_curves", "TrainingStep"):  # jobs.train changes them; this puts them back
        monkeypatch.setattr(trainer, name, getattr(trainer, name))
    recipe = override(recipe, {"ema.decay": 0.9, "epochs": 2, "optimizer.lr": 0.002})
    return TrainConfig(
        data=str(tiny_images),
        arch="resnet20_cifar",
        recipe=recipe,
        save=str(tmp_path / "two"),
        device="cpu",
        workers=1,
        save_every=2,
    )


def test_a_run_goes_on_with_another_number_of_processes(config, tmp_path):
    """6 updates of 8 images: by one process; and by two, from update 4 on by one.

    The same images, augmented in the same way, and nearly the same weights: rounding that differs
    turns a ReLU now and then, as another order within the batch does too.
    """
    alone = {"batch_size": 8, "optimizer.lr": 2 * config.recipe.optimizer.lr}
    alone = override(config.recipe, alone)
    run(1, jobs.train, replace(config, recipe=alone, save=str(tmp_path / "one")))
    code = launch(jobs.train, Topology(ngpus=2), config, 4, device_type="cpu")
    assert code == 143
    path = tmp_path / "two" / "resnet20_cifar" / "checkpoint.safetensors"
    assert read_checkpoint(path)[0].step == 4
    resumed = replace(config, resume="auto")
    for key, name in (("optimizer.lr", "optimizer.lr"), ("batch_size", "images per update")):
        halved = {key: 0.002 if key == "optimizer.lr" else 4}
        other = replace(resumed, recipe=override(alone, halved))
        with pytest.raises(UsageError, match=f"that run is another one: .*{name}"):
            launch(jobs.train, Topology(), other)
    run(1, jobs.train, replace(resumed, recipe=alone))
    progress, found = read_checkpoint(path)
    _, expected = read_checkpoint(tmp_path / "one" / "resnet20_cifar" / "checkpoint.safetensors")
    assert (progress.step, progress.total_batch) == (6, 8)
    assert found.keys() == expected.keys()
    assert seen_images(tmp_path / "two") == seen_images(tmp_path / "one")
    assert len(seen_images(tmp_path / "one")) == 6 * 8
    for name in (name for name in expected if "running" not in name and "optimizer" not in name):
        assert np.allclose(found[name], expected[name], atol=1e-3), name


def test_no_checkpoint_is_written_of_weights_that_differ(config, tmp_path):
    message = "the network's weights differ between rank 0 and rank.s. 1"
    with pytest.raises(TrainingError, match=message):
        launch(jobs.train_apart, Topology(ngpus=2), config, device_type="cpu")
    assert not list(tmp_path.rglob("checkpoint*"))


def test_all_ranks_test_and_save_one_network(config, tmp_path):
    """Without sync_bn each has batch statistics of its own, and rank 0's are what counts."""
    config = replace(config, recipe=override(config.recipe, {"sync_bn": False}))
    run(2, jobs.train_watched, config)
    first, second = ((tmp_path / "two" / f"{rank}.txt").read_text().split("\n") for rank in (0, 1))
    assert first == second
    epoch = ["tested", "tested", "saved"]  # the weights and their average, at updates 3 and 6
    assert [line.split()[0] for line in first] == ["saved", *epoch, "saved", *epoch]
    saved = [line for line in first if line.startswith("saved")]
    assert len(set(saved)) == 4


def seen_images(save):
    """(step, position in the data set, hash of the augmented image) of all ranks."""
    lines = [path.read_text().splitlines() for path in save.glob("seen-*")]
    return sorted(line for rank in lines for line in rank)
