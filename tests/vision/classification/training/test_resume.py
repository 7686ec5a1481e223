"""A run that is killed, again and again, against one that is not.

Run as a script, this file is train.py with a network of 8 layers, killed by SIGKILL at a place of
one's choice: ``python -m tests.vision.classification.training.test_resume PLACE COUNT FLAGS``.
"""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from official.vision.classification.engine import console, files
from official.vision.classification.engine.console import Console, read_metrics
from official.vision.classification.engine.recipe import load_recipe, override
from official.vision.classification.errors import UsageError, UserError, WeightsError
from official.vision.classification.readers import read_weights
from official.vision.classification.resnet.pretrained import accepts_pretrained
from official.vision.classification.training import checkpoint, trainer
from official.vision.classification.training.checkpoint import read_checkpoint
from official.vision.classification.training.run_folder import RunFolder
from official.vision.classification.training.schedule import learning_rate
from official.vision.classification.training.step import TrainingStep
from official.vision.classification.training.trainer import Trainer, train
from official.vision.classification.zoo.models import ARCHS
from tests.scripts import ROOT, load_script
from tests.vision.classification.training.conftest import resnet8_cifar

# Everything that draws random numbers or remembers something from step to step.
EVERYTHING = """
epochs: 10
batch_size: 2
accumulate: 2
optimizer: {type: lamb, lr: 0.01, lr_per: 4, weight_decay: 0.02, decay_norm: false, clip_norm: 1}
schedule: {type: cosine, warmup_epochs: 1, final_lr: 1.0e-6}
loss: {type: bce, label_smoothing: 0.1}
augment:
  crop: random
  jitter: 0.3
  rand_augment: {magnitude: 7}
  erasing: 0.25
  mixup: 0.2
  cutmix: 1.0
  repeats: 3
drop_path: 0.3
ema: {decay: 0.99}
preprocess: {order: RGB, mean: [128, 128, 128], std: [64, 64, 64], resize: [20, 20], crop: 16}
"""
STEPS = 60

# Where it is killed, and at which time of being there. "any" is killed from outside, after so many
# lines of progress and a moment.
KILLS = [
    ("half written", 2),
    ("any", None),
    ("before best is renamed", 1),  # at the end of the first epoch
    ("any", None),
    ("half rewound", 1),
    ("before rename", 3),
    ("any", None),
    ("room made", 2),
    ("half a row", 4),
    ("any", None),
    ("renamed", 3),
    ("any", None),
]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


class Places:
    """Counts how often the run comes to the place where it is to be killed."""

    def __init__(self, wanted, count):
        self.wanted = wanted
        self.left = count
        self.last = ""

    def here(self, place):
        self.left -= place == self.wanted
        return place == self.wanted and self.left == 0

    def fsync(self, descriptor):
        """In place of os.fsync, which writing a file atomically calls twice: for it, its folder."""
        name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
        half = {"checkpoint": "half written", "metrics": "half rewound"}
        whole = {"checkpoint": "before rename", "best": "before best is renamed"}
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            if self.last == "checkpoint" and self.here("renamed"):
                kill()
            return
        self.last = name.split(".")[0]
        if self.last == "checkpoint":
            time.sleep(0.04)  # about as long as a step: many instants are in the middle of a write
        if self.here(half.get(self.last)):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            kill()
        if self.here(whole.get(self.last)):
            kill()

    def make_room(self, make):
        def made(folder, step):
            make(folder, step)
            if self.here("room made"):
                kill()

        return made

    def metrics(self, write):
        def written(shown, **values):
            write(shown, **values)
            if self.here("half a row"):
                path = shown.folder / "metrics.jsonl"
                os.truncate(path, path.stat().st_size - 30)
                kill()

        return written


def main(place, count, *arguments):
    places = Places(place, int(count))
    files.os.fsync = places.fsync
    RunFolder.make_room = places.make_room(RunFolder.make_room)
    console.Console.metrics = places.metrics(Console.metrics)
    trainer.draw_curves = lambda folder: None
    ARCHS["resnet20_cifar"] = accepts_pretrained(resnet8_cifar)
    return load_script("train.py").main(arguments)


@pytest.fixture()
def flags(tiny_images, tmp_path):
    recipe = tmp_path / "everything.yaml"
    recipe.write_text(EVERYTHING)
    given = ["--data", tiny_images, "-c", recipe, "--arch", "resnet20_cifar", "--device", "cpu"]
    given += ["--save-every", 1, "--print-freq", 4, "--keep", 2, "--seed", 5, "--save"]
    return list(map(str, given))


def run_until_killed(place, count, flags, rng):
    """Start a run and see it killed; say whether that was in the middle of a checkpoint's write."""
    module = ("-m", "tests.vision.classification.training.test_resume")
    process = subprocess.Popen(
        [sys.executable, *module, place, str(count or 0), *flags, "--resume", "auto"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if place == "any":
        for _ in range(int(rng.integers(2, 5))):
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.2))
        process.kill()
    _, err = process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL, err
    folder = Path(flags[-1]) / "resnet20_cifar"
    return (folder / "checkpoint.safetensors.part").exists()


def without_times(rows):
    return [{**row, "seconds_per_step": None} for row in rows]


def test_a_run_killed_a_dozen_times_ends_bit_equal(small, flags, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert load_script("train.py").main([*flags, str(straight)]) == 0

    rng = np.random.default_rng(0)
    writing = 0
    for place, count in KILLS:
        writing += run_until_killed(place, count, [*flags, str(killed)], rng)
    assert writing >= 2  # "half written" and "before rename", and by chance
    folder = killed / "resnet20_cifar"
    kept = RunFolder(str(killed), "resnet20_cifar", None).checkpoints()
    reached = max(read_checkpoint(path)[0].step for path in kept)
    assert 6 < reached < STEPS
    assert load_script("train.py").main([*flags, str(killed), "--resume", "auto"]) == 0

    expected = straight / "resnet20_cifar"
    for name in ("checkpoint.safetensors", "checkpoint-59.safetensors", "best.safetensors"):
        found, wanted = load_file(str(folder / name)), load_file(str(expected / name))
        assert found.keys() == wanted.keys()
        assert all(found[key].tobytes() == wanted[key].tobytes() for key in wanted), name
    progress, tensors = read_checkpoint(folder / "checkpoint.safetensors")
    assert progress == read_checkpoint(expected / "checkpoint.safetensors")[0]
    assert progress.step == STEPS
    assert {name.split(".")[0] for name in tensors} == {"model", "optimizer", "average"}
    rows = read_metrics(expected)
    assert [row["step"] for row in rows if row["event"] == "epoch"] == list(range(6, 61, 6))
    assert without_times(read_metrics(folder)) == without_times(rows)
    left = ["best", "checkpoint", "checkpoint-59"]
    assert sorted(path.stem for path in folder.glob("*.safetensors*")) == left
    assert {path.name for path in folder.iterdir()} == {path.name for path in expected.iterdir()}


@pytest.fixture()
def finished(small, config, folder):
    """A run of twelve steps that has kept three checkpoints: of steps 6, 9 and 12."""
    train(replace(config, keep=3))
    assert steps_of(folder) == [12, 9, 6]
    return folder


def steps_of(folder):
    kept = RunFolder(str(folder.parent), folder.name, None).checkpoints()
    return [read_checkpoint(path)[0].step for path in kept]


def resumed_at(monkeypatch, config):
    """The step that a run goes on from, without running it."""
    steps = []
    monkeypatch.setattr(Trainer, "_run_steps", lambda self, stop: steps.append(self.step) or 0)
    assert train(replace(config, resume="auto")) == 0
    return steps[0]


def damages(data, rng):
    """Files cut short or with a flipped bit, at random places."""
    for length in (0, *rng.integers(1, len(data), 4)):
        yield data[:length]
    for position in rng.integers(0, len(data), 4):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
    yield bytes(len(data))  # what a file system may leave after a power cut


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(finished, config, monkeypatch, caplog):
    latest, before = finished / "checkpoint.safetensors", finished / "checkpoint-9.safetensors"
    for damaged in damages(latest.read_bytes(), np.random.default_rng(1)):
        latest.write_bytes(damaged)
        caplog.clear()
        assert resumed_at(monkeypatch, config) == 9
        (warning,) = [record.message for record in caplog.records]
        assert warning.startswith(f"{latest}: ")
        assert warning.endswith(f"; going back to {before}")


def test_two_damaged_checkpoints_give_way_to_the_third(finished, config, monkeypatch, caplog):
    straight = load_file(str(finished / "checkpoint.safetensors"))
    for name in ("checkpoint", "checkpoint-9"):
        os.truncate(finished / f"{name}.safetensors", 1000)
    assert train(replace(config, keep=3, resume="auto")) == 0
    first, second = [record.message for record in caplog.records]
    assert "checkpoint.safetensors: " in first and "checkpoint-9.safetensors" in first
    assert "checkpoint-9.safetensors: " in second and "checkpoint-6.safetensors" in second
    assert steps_of(finished) == [12, 9, 6]
    found = load_file(str(finished / "checkpoint.safetensors"))
    assert all(found[key].tobytes() == straight[key].tobytes() for key in straight)


def test_a_resumed_run_knows_its_best_weights(finished, config):
    """Those of an epoch before, which no later one is better than."""
    (finished / "checkpoint.safetensors").unlink()
    best, rows = (finished / "best.safetensors").read_bytes(), read_metrics(finished)
    first, *later = [row["val_top1"] for row in rows if row["event"] == "epoch"]
    assert first >= max(later)
    assert train(replace(config, resume="auto")) == 0
    assert (finished / "best.safetensors").read_bytes() == best
    assert without_times(read_metrics(finished)) == without_times(rows)


@pytest.mark.parametrize(("keep", "steps"), [(1, [12]), (2, [12, 9]), (3, [12, 9, 6])])
def test_as_many_checkpoints_stay_as_asked_for(small, config, folder, keep, steps):
    train(replace(config, keep=keep))
    assert steps_of(folder) == steps


def test_a_kill_while_the_only_checkpoint_is_replaced(small, config, folder, monkeypatch):
    """With ``keep=1`` the old one stays until the new one is there."""
    made = []

    def make_room(self, step):
        make(self, step)
        made.append(step)
        if step == 6:
            raise KeyboardInterrupt  # nothing after this line is run

    make = RunFolder.make_room
    monkeypatch.setattr(RunFolder, "make_room", make_room)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, keep=1))
    monkeypatch.setattr(RunFolder, "make_room", make)
    assert made == [3, 6]
    assert not (folder / "checkpoint.safetensors").exists()
    assert resumed_at(monkeypatch, config) == 6


def test_the_leftovers_of_a_killed_write_do_no_harm(finished, config, monkeypatch):
    for name in ("checkpoint.safetensors.part", "best.safetensors.part", "metrics.jsonl.part"):
        (finished / name).write_bytes(b"half of someth")
    shutil.copy(finished / "checkpoint-6.safetensors", finished / "checkpoint.safetensors")
    assert resumed_at(monkeypatch, config) == 6
    assert not list(finished.glob("*.part"))


def test_another_spelling_of_the_folder_keeps_the_latest_too(
    finished, config, monkeypatch, tmp_path
):
    """The checkpoint that a run was resumed from becomes the one before."""
    shutil.copy(finished / "checkpoint-6.safetensors", finished / "checkpoint.safetensors")
    (finished / "checkpoint-6.safetensors").unlink()
    (finished / "checkpoint-9.safetensors").unlink()
    monkeypatch.chdir(tmp_path)
    source = os.path.relpath(finished / "checkpoint.safetensors")
    assert train(replace(config, keep=3, resume=source)) == 0
    assert steps_of(finished) == [12, 9, 6]


def test_a_checkpoint_that_is_missing_makes_no_run(small, config, folder):
    with pytest.raises(WeightsError, match="nowhere.safetensors: no such file"):
        train(replace(config, resume="nowhere.safetensors"))
    assert not list(folder.iterdir())


def test_a_run_does_not_mix_with_what_another_has_left(finished, config, tmp_path):
    """A run resumed from a file, in a folder where another never came to a checkpoint."""
    folder = tmp_path / "other" / "resnet20_cifar"
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"event": "train", "step": 1}\n')
    source = str(finished / "checkpoint-9.safetensors")
    with pytest.raises(UserError, match="metrics.jsonl: belongs to a run"):
        train(replace(config, save=str(tmp_path / "other"), resume=source))
    (folder / "metrics.jsonl").unlink()
    assert train(replace(config, save=str(tmp_path / "other"), resume=source)) == 0
    assert [row["step"] for row in read_metrics(folder)] == [11, 12, 12]


def test_a_run_killed_before_its_first_checkpoint_begins_again(small, config, folder):
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("Epoch 1 Step 0\n")
    (folder / "metrics.jsonl").write_text('{"event": "train", "step": 1}\n')
    assert train(replace(config, resume="auto")) == 0
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(steps) and steps.count(1) == 1
    assert (folder / "log.txt").read_text().startswith("Epoch 1 Step 0\ndata: ")


SCALER = ("scale_factor", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker")


def rewrite(path, description=None, tensors=None):
    """Change a checkpoint; the digest is no signature: whoever writes a file can make it right."""
    file = read_weights(path)
    tensors = {**file.tensors, **(tensors or {})}
    description = json.dumps({**json.loads(file.metadata["resnet"]), **(description or {})})
    metadata = {"resnet": description, "sha256": checkpoint._digest(tensors, description)}
    save_file(tensors, str(path), metadata)


@pytest.mark.parametrize(
    "change",
    [
        {"step": -1},
        {"step": "12"},
        {"step": True},
        {"step": 10**18},
        {"step": 10**400},
        {"step": 3.0},
        {"best_top1": float("nan")},
        {"best_top1": float("inf")},
        {"best_top1": 101.0},
        {"best_top1": -2.0},
        {"best_top1": 50},
        {"seed": -1},
        {"seed": None},
        {"total_batch": 0},
        {"total_batch": 10**18},
        {"arch": ["resnet18"]},
        {"classes": []},
        {"classes": ["a", "a"]},
        {"classes": ["a", 1]},
        {"recipe": []},
        {"precision": {"scale_factor": 1.0}},
        {"precision": {"other": 1.0}},
        {"precision": dict.fromkeys(SCALER, float("nan"))},
        {"precision": dict.fromkeys(SCALER, -1)},
        {"best_top1": None},
        {"preprocess": {"order": "GBR"}},
        {"preprocess": []},
        {"classes": 3},
        {"arch": None, "more": 1},
    ],
    ids=str,
)
def test_a_description_that_makes_no_sense(finished, change):
    path = finished / "checkpoint.safetensors"
    rewrite(path, change)
    with pytest.raises(WeightsError, match="checkpoint.safetensors: cannot be resumed: "):
        read_checkpoint(path)


def test_a_description_that_was_not_changed_is_read(finished):
    path = finished / "checkpoint.safetensors"
    rewrite(path)
    assert read_checkpoint(path)[0].step == 12


def spoilt(values, number):
    values = values.copy()
    values.reshape(-1)[-1] = number
    return values


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.fc.weight", lambda v: spoilt(v, np.nan), "model.fc.weight is not finite"),
        ("model.bn1.running_var", lambda v: spoilt(v, -1), "model.bn1.running_var is negative"),
        (
            "optimizer.fc.bias.momentum_buffer",
            lambda v: spoilt(v, np.inf),
            "optimizer.fc.bias.momentum_buffer is not finite",
        ),
        ("model.fc.bias", lambda v: v.astype(np.int32), "its tensors are not those of this run"),
        ("model.fc.bias", lambda v: v.astype(np.float64), "damaged"),
        ("optimizer.fc.bias.momentum_buffer", lambda v: v.astype(np.int32), "not those of this"),
        ("model.fc.bias", lambda v: v[:-1], "its tensors are not those of this run"),
        ("model.more", lambda v: np.zeros(3, np.float32), "its tensors are not those of this run"),
    ],
)
def test_tensors_that_make_no_sense(finished, config, name, change, message):
    path = finished / "checkpoint.safetensors"
    rewrite(path, tensors={name: change(load_file(str(path)).get(name))})
    alone = str(shutil.copy(path, finished.parent / "alone.safetensors"))
    with pytest.raises(WeightsError, match=f"alone.safetensors: .*{message}"):
        train(replace(config, save=config.save + "-2", resume=alone))


def test_a_checkpoint_that_is_not_finite_gives_way_to_the_one_before_it(
    finished, config, monkeypatch, caplog
):
    path = finished / "checkpoint.safetensors"
    name = "optimizer.fc.bias.momentum_buffer"
    rewrite(path, tensors={name: spoilt(load_file(str(path))[name], np.nan)})
    assert resumed_at(monkeypatch, config) == 9
    assert f"{name} is not finite; going back to " in caplog.text


def test_a_step_beyond_the_end_of_its_run(finished, config):
    path = finished / "checkpoint.safetensors"
    rewrite(path, {"step": 13})
    with pytest.raises(WeightsError, match="step 13 of a run that ends at 12"):
        train(replace(config, save=config.save + "-2", resume=str(path)))


def longer(config, epochs, **changes):
    return replace(config, resume="auto", recipe=config.recipe.with_epochs(epochs), **changes)


def test_a_run_that_has_ended_can_be_made_longer(finished, config, capsys):
    """With the momentum it had, at the rates of the longer run's last epochs."""
    before = read_checkpoint(finished / "checkpoint.safetensors")[1]
    rows = read_metrics(finished)
    seen = []
    step = TrainingStep.__call__

    def watched(self, batch, number, rate):
        if not seen:
            seen.extend(
                (name, value.numpy().copy())
                for name, value in checkpoint._optimizer_state(self.model, self.optimizer)
            )
        seen.append((number, rate))
        return step(self, batch, number, rate)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingStep, "__call__", watched)
        assert train(longer(config, 6)) == 0
    momentum = {f"optimizer.{name}": v for name, v in seen if isinstance(v, np.ndarray)}
    assert momentum and all(np.array_equal(before[name], v) for name, v in momentum.items())
    recipe = config.recipe.with_epochs(6)
    expected = [
        (number, learning_rate(number, 3, 6, recipe.total_lr(1), recipe.schedule))
        for number in range(12, 18)
    ]
    assert [pair for pair in seen if isinstance(pair[0], int)] == expected
    out = capsys.readouterr().out
    assert "made longer: 6 epochs instead of 4, with the optimizer's state" in out
    assert read_metrics(finished)[: len(rows)] == rows
    assert steps_of(finished)[0] == 18
    assert load_recipe(str(finished / "recipe.yaml")).epochs == 6
    with pytest.raises(UsageError, match="epochs is 6 there and 4 here"):
        train(replace(config, resume="auto"))
    assert train(longer(config, 6)) == 0  # to nothing


def test_a_run_that_has_not_ended_cannot_be_made_longer(finished, config):
    (finished / "checkpoint.safetensors").unlink()
    with pytest.raises(UsageError, match="epochs is 4 there and 6 here.*let it come to its end"):
        train(longer(config, 6))


def test_a_run_that_lost_its_patience_goes_on_with_more(config, capsys):
    """A learning rate of hardly anything changes no count: no epoch is better than the first."""
    recipe = override(config.recipe, {"optimizer.lr": 1e-12, "patience": 1})
    impatient = replace(config, recipe=recipe)
    assert train(impatient) == 0
    folder = Path(config.save) / "resnet20_cifar"
    assert steps_of(folder)[0] == 6
    again = replace(impatient, resume="auto")
    assert train(again) == 0 and steps_of(folder)[0] == 6  # to nothing
    with pytest.raises(UsageError, match="seed is 0 there and 1 here"):
        train(replace(again, recipe=override(recipe, {"patience": 2}), seed=1))
    capsys.readouterr()
    assert train(replace(again, recipe=override(recipe, {"patience": 2}))) == 0
    assert "made longer: patience 2 instead of 1, with" in capsys.readouterr().out
    assert steps_of(folder)[0] == 9
    more = override(recipe.with_epochs(5), {"patience": None})
    assert train(replace(again, recipe=more)) == 0
    assert "5 epochs instead of 4, patience none instead of 2" in capsys.readouterr().out
    assert steps_of(folder)[0] == 15
    with pytest.raises(UsageError, match="patience is none there and 3 here"):
        (folder / "checkpoint.safetensors").unlink()  # the one before it is of no ended run
        train(replace(again, recipe=override(more, {"patience": 3})))


def test_a_run_that_is_made_longer_changes_in_nothing_else(finished, config):
    with pytest.raises(UsageError, match="seed is 0 there and 1 here; give the flags"):
        train(longer(config, 6, seed=1))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
