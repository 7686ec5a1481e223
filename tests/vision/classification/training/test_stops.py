"""What ends a run before its time, what it says then, and what is left."""

import contextlib
import fcntl
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time

import megengine as mge
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.sampler import epoch_order
from official.vision.classification.engine import files
from official.vision.classification.engine.console import read_metrics
from official.vision.classification.training import trainer
from official.vision.classification.training.checkpoint import read_checkpoint
from official.vision.classification.training.step import TrainingStep
from official.vision.classification.zoo import load_weights
from tests.scripts import ROOT, load_script

pytestmark = pytest.mark.usefixtures("small")


@pytest.fixture()
def data(tiny_images, tmp_path):
    """A copy of the pictures that a test may spoil."""
    return shutil.copytree(tiny_images, tmp_path / "data")


@pytest.fixture()
def start(data, tiny_recipe, folder, capsys):
    """Runs train.py; returns its exit code and the lines on stderr."""

    def run(*more):
        flags = ["--data", data, "-c", tiny_recipe, "--arch", "resnet20_cifar", "--device", "cpu"]
        flags += ["--save", folder.parent, "--workers", 0, *more]
        code = load_script("train.py").main(list(map(str, flags)))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.err.splitlines(), captured.out.splitlines()

    return run


@pytest.fixture()
def after(monkeypatch):
    """Does something when ``count`` updates have been made."""

    def arrange(count, action):
        update = TrainingStep.__call__

        def updated(self, batch, step, rate):
            results = update(self, batch, step, rate)
            replaced = action(self) if step + 1 == count else None
            return results if replaced is None else replaced

        monkeypatch.setattr(TrainingStep, "__call__", updated)

    return arrange


def step_of(path):
    return read_checkpoint(path)[0].step


def nan_results(train_step):
    return mge.Tensor(np.array([np.nan, 0, 0], np.float32))


def break_weights(train_step):
    for parameter in train_step.model.parameters():
        parameter._reset(parameter * np.float32("nan"))


def blow_up_weights(train_step):
    """Finite, but nothing that is computed from them is."""
    for parameter in train_step.model.parameters():
        parameter._reset(parameter * np.float32(0) + np.float32(3e38))


def break_momentum(train_step):
    """In a way that shows in no loss before the next update."""
    state = train_step.optimizer._state[train_step.model.fc.bias]
    state["momentum_buffer"]._reset(state["momentum_buffer"] * np.float32("nan"))


@pytest.mark.parametrize("spoil", [break_weights, break_momentum])
@pytest.mark.parametrize(("step", "last"), [(2, None), (5, "checkpoint.safetensors")])
def test_what_is_not_finite_is_not_saved(start, after, folder, spoil, step, last):
    after(step, lambda train_step: spoil(train_step) or os.kill(os.getpid(), signal.SIGTERM))
    code, (line,), _ = start("--save-every", 100)
    assert code == 1
    name = "model.bn1.bias" if spoil is break_weights else "optimizer.fc.bias.momentum_buffer"
    assert line.startswith(f"train.py: error: {name} is not finite after {step} steps; ")
    left = f"the last good checkpoint is {folder / last}" if last else "there is no checkpoint yet"
    assert f"; {left}; lower the learning rate" in line
    assert [step_of(path) for path in folder.glob("checkpoint*")] == ([3] if last else [])


def test_an_average_that_is_not_finite_is_not_saved(start, after, folder):
    def spoil(train_step):
        for value in train_step.average._averages.values():
            value._reset(value * np.float32("nan"))
        os.kill(os.getpid(), signal.SIGTERM)

    after(2, spoil)
    code, (line,), _ = start("--set", "ema.decay=0.9")
    assert code == 1
    assert line.startswith("train.py: error: average.") and " is not finite after 2 steps" in line
    assert not list(folder.glob("*.safetensors"))


def test_a_loss_that_is_not_finite(start, after, data, folder):
    """In the third of four epochs; it is looked at some steps later."""
    after(8, nan_results)
    code, (line,), _ = start()
    assert code == 1
    assert line.startswith("train.py: error: the loss is nan at step 7, on ")
    paths = load_split(data, "train").paths
    images = [paths[index] for index in epoch_order(24, 0, 2)[8:16]]
    assert f" on {images[0]} and 7 more images; " in line
    checkpoint = folder / "checkpoint.safetensors"
    assert f"; the last good checkpoint is {checkpoint}; lower the learning rate" in line
    assert step_of(checkpoint) == 6


def test_a_loss_that_is_not_finite_before_there_is_a_checkpoint(start, after, folder):
    after(2, nan_results)
    code, (line,), _ = start("--print-freq", 1)
    assert code == 1
    assert "at step 1, on " in line and "; there is no checkpoint yet; " in line
    assert not list(folder.glob("*.safetensors*"))


def test_a_checkpoint_whose_weights_gave_that_loss_is_not_called_good(start, after, folder):
    """The loss of an update is that of the weights before it; it is looked at before they go."""
    after(4, blow_up_weights)
    code, (line,), _ = start("--save-every", 1, "--keep", 3)
    assert code == 1
    assert re.match("train.py: error: the loss is (nan|inf) at step 4, on ", line)
    good = folder / "checkpoint-3.safetensors"
    assert f"the last good checkpoint is {good};" in line
    assert all(np.isfinite(value).all() for value in load_weights(good).tensors.values())
    assert step_of(folder / "checkpoint.safetensors") == 4


def test_weights_that_break_before_a_test_are_not_saved(start, after, folder):
    after(6, break_weights)
    code, (line,), _ = start()
    assert code == 1
    assert "the network's outputs are not finite" in line
    assert [step_of(path) for path in folder.glob("checkpoint*")] == [3]


def test_a_full_disk_while_saving(start, folder, monkeypatch):
    """/dev/full takes nothing, and says what a full disk says."""
    part = folder / "checkpoint.safetensors.part"

    def fill(path):
        if step_of(folder / "checkpoint.safetensors") == 6:
            part.symlink_to("/dev/full")

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "draw_curves", fill)
        code, (line,), _ = start("--keep", 1)
    assert code == 1
    checkpoint = folder / "checkpoint.safetensors"
    assert line == (
        f"train.py: error: {checkpoint}: cannot be written: No space left on device; what was "
        "there before is kept"
    )
    kept = folder / "checkpoint-6.safetensors"
    assert [step_of(path) for path in folder.glob("checkpoint*")] == [6]
    assert kept.exists() and not part.is_symlink()
    assert start("--resume", "auto")[0] == 0


def test_a_disk_that_fails_late(start, folder, monkeypatch):
    """When what was written is flushed."""
    flushed = []

    def fail(descriptor):
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        if sum(path.endswith("checkpoint.safetensors.part") for path in flushed) == 2:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, "fsync", fail)
    code, (line,), _ = start()
    assert code == 1
    assert "checkpoint.safetensors: cannot be written: Input/output error" in line
    assert [step_of(path) for path in folder.glob("checkpoint*")] == [3]


@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt"])
def test_a_full_disk_while_something_small_is_written(start, folder, monkeypatch, name):
    def fill(path):
        (folder / name).unlink()
        (folder / name).symlink_to("/dev/full")

    monkeypatch.setattr(trainer, "draw_curves", fill)
    code, (line,), _ = start()
    assert code == 1
    assert line.endswith(": No space left on device")
    assert step_of(folder / "checkpoint.safetensors") == 3


@pytest.mark.parametrize("split", ["train", "val"])
def test_data_that_vanish(start, after, data, folder, split):
    after(5, lambda train_step: (data / split).rename(data / "gone") and None)
    code, (line,), _ = start()
    assert code == 1
    path = line[len("train.py: error: ") : line.index(": no such image")]
    assert path in load_split_before(data, split)
    assert step_of(folder / "checkpoint.safetensors") == 3


def load_split_before(data, split):
    (data / "gone").rename(data / split)
    return load_split(data, split).paths


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a picture", "not an image of a format that is read (JPEG, "),
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n cut", "the image is cut short"),
    ],
)
def test_an_image_that_spoils_in_the_middle(
    start, data, folder, monkeypatch, workers, content, message
):
    path = data / "train" / "green" / "3.png"
    monkeypatch.setattr(trainer, "draw_curves", lambda _: path.write_bytes(content))
    code, (line,), _ = start("--workers", workers)
    assert code == 1
    assert line.startswith(f"train.py: error: {path}: {message}")
    assert step_of(folder / "checkpoint.safetensors") >= 3


@pytest.mark.parametrize(
    ("number", "name", "exit_code"),
    [
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGINT, "SIGINT", 130),
        (signal.SIGHUP, "SIGHUP", 129),
        (signal.SIGUSR1, "SIGUSR1", 138),
        (signal.SIGUSR2, "SIGUSR2", 140),
        (signal.SIGXCPU, "SIGXCPU", 152),
    ],
)
@pytest.mark.parametrize("step", [4, 6, 12])
def test_a_signal_saves_and_says_how_to_go_on(start, after, folder, number, name, exit_code, step):
    after(step, lambda train_step: os.kill(os.getpid(), number))
    code, err, out = start()
    assert (code, err) == (exit_code, [])
    checkpoint = folder / "checkpoint.safetensors"
    assert out[-1] == (
        f"{name}: saved step {step} of 12 to {checkpoint}; continue with --resume auto"
    )
    assert step_of(checkpoint) == step


def test_a_signal_while_it_tests(start, folder, monkeypatch):
    """The test is finished first, and nothing is saved twice."""
    evaluate = trainer.evaluate

    def evaluated(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate", evaluated)
    code, _, out = start()
    assert code == 143
    assert out[-1].startswith("SIGTERM: saved step 3 of 12 ")
    assert [step_of(path) for path in folder.glob("checkpoint*")] == [3]


def test_the_second_ctrl_c_ends_it_at_once(start, after, folder):
    def twice(train_step):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    after(5, twice)
    code, err, _ = start()
    assert (code, err) == (130, ["train.py: interrupted"])
    assert [step_of(path) for path in folder.glob("checkpoint*")] == [3]


def test_a_run_that_stops_goes_on_with_the_same_flags(start, after):
    """Also with another print frequency and number of workers, which are no part of a run."""
    after(5, lambda train_step: os.kill(os.getpid(), signal.SIGTERM))
    assert start()[0] == 143
    code, err, out = start("--resume", "auto", "--print-freq", 1, "--workers", 2)
    assert (code, err) == (0, [])
    assert out[0].endswith("checkpoint.safetensors at step 5 of 12")
    assert out[1].startswith("data: ") and out[2].startswith("kernels: ")
    assert out[4].startswith("Epoch 2 Step 5, ")


@pytest.mark.parametrize("inside", ["train", "train/green", "val/new", "new"])
def test_a_run_inside_its_data_is_refused_before_anything_is_made(start, data, inside):
    before = sorted(data.rglob("*"))
    for more in ([], ["--dry-run"], ["--ngpus", 2]):
        code, (line,), _ = start("--save", data / inside, *more)
        assert code == 2
        assert line.startswith(f"train.py: error: --save {data / inside}: lies in the data set")
    assert sorted(data.rglob("*")) == before


def test_a_second_run_is_refused_while_the_first_one_is_at_work(start, after, folder):
    """Also one that would go on from its checkpoint."""
    told = []

    def try_again(train_step):
        if not told:
            told.append(None)
            told.extend(start(*more) for more in ([], ["--resume", "auto"]))

    after(4, try_again)
    assert start()[0] == 0
    for code, (line,), _ in told[1:]:
        assert code == 1
        assert line.startswith(f"train.py: error: {folder}: another run is at work here")
    assert step_of(folder / "checkpoint.safetensors") == 12
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == sorted(steps)


def test_two_processes_of_one_run_share_its_lock_and_are_quiet(data, tiny_recipe, tmp_path):
    """MegEngine warns of ResNet-18's classifier when its gradients are shared."""
    folder = tmp_path / "two" / "resnet18"
    flags = ["--data", data, "-c", tiny_recipe, "--arch", "resnet18", "--device", "cpu"]
    flags += ["--save", folder.parent, "--ngpus", 2, "--epochs", 1, "-b", 4]
    command = [sys.executable, "train.py", *map(str, flags)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"; results are in {folder}\n" in done.stdout
    assert not list(folder.glob(".*"))


def test_a_run_whose_terminal_is_lost_is_saved(data, tiny_recipe, folder):
    """The kernel sends SIGHUP, and every line to the terminal fails from then on."""
    flags = ["--data", data, "-c", tiny_recipe, "--arch", "resnet20_cifar", "--device", "cpu"]
    flags += ["--save", folder.parent, "--epochs", 500]
    terminal, other_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "train.py", *map(str, flags)],
        cwd=ROOT,
        stdin=other_end,
        stdout=other_end,
        stderr=other_end,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(other_end)
    os.set_blocking(terminal, False)
    with process:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
            with contextlib.suppress(BlockingIOError):
                os.read(terminal, 1 << 16)
            time.sleep(0.05)
        os.close(terminal)
        assert process.wait(timeout=60) == 128 + signal.SIGHUP
    step = step_of(folder / "checkpoint.safetensors")
    last = (folder / "log.txt").read_text().splitlines()[-1]
    assert last.startswith(f"SIGHUP: saved step {step} of 1500 to ")
