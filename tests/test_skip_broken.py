"""--skip-broken through the scripts: all leave out the same images, on any number of ranks.

Without the flag an image that cannot be read ends a run; with it, all is as if its file were not
there, bit for bit.
"""

import json
import os
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from official.vision.classification.engine.console import read_metrics
from official.vision.classification.training.checkpoint import read_checkpoint
from official.vision.classification.training.trainer import Trainer
from tests.scripts import load_script

ARCH = "resnet20_cifar"


def _huge(path):
    """A PNG whose header promises 20,000 x 20,000 pixels."""

    def chunk(kind, content):
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _link(path):
    path.unlink()
    path.symlink_to("/nowhere/at/all.png")


def _loop(path):
    path.unlink()
    path.symlink_to("/dev/zero")


BREAKS = {
    "train/blue/0.png": lambda path: path.write_bytes(b""),
    "train/green/3.png": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "train/red/1.png": _link,
    "train/red/2.png": lambda path: path.write_bytes(b"<!DOCTYPE html><html>404</html>"),
    "val/blue/0.png": _huge,
    "val/green/4.png": _pipe,
    "val/red/2.png": _loop,
}
TRAIN, VAL = 4, 3


@pytest.fixture(scope="module")
def broken(tiny_images, tmp_path_factory):
    """The tiny images, some of them broken in all ways, and one damaged but readable."""
    root = tmp_path_factory.mktemp("broken") / "data"
    shutil.copytree(tiny_images, root)
    for name, spoil in BREAKS.items():
        spoil(root / name)
    return root


@pytest.fixture(scope="module")
def removed(tiny_images, tmp_path_factory):
    """The same without these files."""
    root = tmp_path_factory.mktemp("removed") / "data"
    shutil.copytree(tiny_images, root)
    for name in BREAKS:
        (root / name).unlink()
    return root


def train(data, recipe, save, *more):
    flags = ["--data", data, "-c", recipe, "--arch", ARCH, "--save", save, "--device", "cpu"]
    return ["train.py", *flags, "-j", 1, *more]


def run(name, *flags):
    """The script in this process."""
    return load_script(name).main([str(flag) for flag in flags])


def tensors_of(save):
    return read_checkpoint(Path(save) / ARCH / "checkpoint.safetensors")[1]


def assert_equal_runs(one, other):
    first, second = tensors_of(one), tensors_of(other)
    assert first.keys() == second.keys()
    assert all((second[name] == value).all() for name, value in first.items())


@pytest.fixture(scope="module")
def trained(removed, tmp_path_factory):
    """A run on the images without the broken ones: what the others are compared with."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = folder / "tiny.yaml"
    recipe.write_text(
        "epochs: 3\n"
        "batch_size: 4\n"
        "optimizer: {lr: 0.05, momentum: 0.9, weight_decay: 0.0001}\n"
        "schedule: {milestones: [2], warmup_epochs: 1}\n"
        "augment: {crop: padded, padding: 2, jitter: 0.2}\n"
        "preprocess: {order: BGR, mean: [128, 128, 128], std: [64, 64, 64], resize: 16, crop: 16}\n"
    )
    assert run(*train(removed, recipe, folder / "removed")) == 0
    return recipe, folder / "removed"


def test_without_the_flag_a_broken_image_ends_the_run(broken, trained, tmp_path, capsys):
    recipe, _ = trained
    assert run(*train(broken, recipe, tmp_path)) == 1
    said = capsys.readouterr().err
    assert any(f"{broken}/{name}" in said for name in BREAKS) and len(said.splitlines()) == 1


def test_a_run_is_as_if_the_broken_files_were_not_there(broken, trained, tmp_path, capsys):
    recipe, before = trained
    capsys.readouterr()
    assert run(*train(broken, recipe, tmp_path, "--skip-broken")) == 0
    out = capsys.readouterr().out.splitlines()
    assert f"skipped: {TRAIN} of 24 training images cannot be used" in out
    assert f"skipped: {VAL} of 15 validation images cannot be used" in out
    for name in BREAKS:
        assert sum(line.startswith(f"skipped: {broken}/{name}: ") for line in out) == 1
    assert any("test.py" in line and "--skip-broken" in line for line in out)
    rows = [row for row in read_metrics(tmp_path / ARCH) if row["event"] == "epoch"]
    assert [(row["skipped_train"], row["skipped_val"]) for row in rows] == [(TRAIN, VAL)] * 3
    assert_equal_runs(before, tmp_path)
    kept = [row for row in read_metrics(before / ARCH) if row["event"] == "epoch"]
    assert not any("skipped_train" in row for row in kept)
    assert [row["val_loss"] for row in kept] == [row["val_loss"] for row in rows]


@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_that_is_stopped_and_resumed_ends_the_same(
    broken, trained, tmp_path, capsys, monkeypatch, stop
):
    """In the middle of an epoch, and at its end."""
    recipe, before = trained
    line = train(broken, recipe, tmp_path, "--skip-broken", "--resume", "auto")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_is_stopped", lambda self, _: self.step == stop)
        assert run(*line) == 128 + 15
    assert run(*line) == 0
    assert f"at step {stop} of 15" in capsys.readouterr().out
    assert_equal_runs(before, tmp_path)
    rows = [row for row in read_metrics(tmp_path / ARCH) if row["event"] == "epoch"]
    assert [(row["skipped_train"], row["skipped_val"]) for row in rows] == [(TRAIN, VAL)] * 3


def test_two_ranks_leave_out_the_same(broken, removed, trained, tmp_path, script):
    recipe, _ = trained
    for data, flag in ((broken, ["--skip-broken"]), (removed, [])):
        save = tmp_path / data.parent.name
        done = script(*train(data, recipe, save, "-n", 2, *flag))
        assert done.returncode == 0, done.stderr
        if flag:
            assert done.stdout.count(f"skipped: {TRAIN} of 24 training images") == 1
    assert_equal_runs(*(tmp_path / data.parent.name for data in (broken, removed)))


def test_the_test_counts_the_rest_on_any_number_of_ranks(
    broken, removed, trained, tmp_path, script
):
    _, before = trained
    model = before / ARCH / "best.safetensors"
    results = []
    for ranks, data in ((1, removed), (1, broken), (2, broken), (3, broken)):
        path = tmp_path / f"{len(results)}.json"
        flags = ["--data", data, "--model", model, "--device", "cpu", "-n", ranks, "-j", 1]
        flags += ["--json", path, "--report", tmp_path / f"report{len(results)}"]
        done = script("test.py", *flags, *["--skip-broken"] * (data == broken))
        assert done.returncode == 0, done.stderr
        results.append(json.loads(path.read_text()))
        if data == broken:
            assert done.stdout.count(f"skipped: {VAL} of 15 test images cannot be used") == 1
    without = results[0]
    for result in results[1:]:
        skipped = result.pop("skipped")
        assert (skipped["count"], skipped["of"]) == (VAL, 15)
        names = {f"{broken}/{name}" for name in BREAKS if "val/" in name}
        assert {reason.split(": ")[0] for reason in skipped["first"]} == names
        assert result["confusion"] == without["confusion"] and result["total"] == 12
        assert result["top1_correct"] == without["top1_correct"]
        assert result["loss"] == pytest.approx(without["loss"], rel=1e-6)
    rows = (tmp_path / "report1" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 12


def test_all_agree_about_every_file(broken, trained, tmp_path, capsys, caplog):
    """The check of a data set, and prediction, name the same files."""
    _, before = trained
    path = tmp_path / "report.json"
    check = ["tools/check_data.py", "--data", broken, "--json", path]
    assert run(*check) == 1
    assert "--skip-broken goes on without those images" in capsys.readouterr().out
    assert run(*check, "--skip-broken") == 0
    assert "usable with --skip-broken, which leaves 7 images out" in capsys.readouterr().out
    report = json.loads(path.read_text())
    assert report["skipped"] == {"train": TRAIN, "val": VAL}
    found = {
        reason.split(": ")[0] for reasons in report["unreadable"].values() for reason in reasons
    }
    assert found == {f"{broken}/{name}" for name in BREAKS}
    predict = ["inference.py", broken / "train", broken / "val", "--json", "--device", "cpu"]
    predict += ["--model", before / ARCH / "best.safetensors", "-j", 1]
    assert run(*predict) == 1
    assert len(json.loads(capsys.readouterr().out)) == 39 - 7
    assert all(f"{name}: " in caplog.text for name in found)
    caplog.clear()
    assert run(*predict, "--skip-broken") == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["images"]) == 39 - 7 and answer["skipped"]["count"] == 7
    assert len(answer["skipped"]["first"]) == 5
    assert "7 of 39 images could not be used" in caplog.text
    assert len(caplog.messages) == 5 + 1


def test_one_image_alone_must_be_good(broken, trained, capsys):
    _, before = trained
    flags = ["--model", before / ARCH / "best.safetensors", "--skip-broken", "--device", "cpu"]
    assert run("inference.py", broken / "val/blue/0.png", *flags) == 1
    assert "20,000 x 20,000 pixels" in capsys.readouterr().err
    two = [broken / "val/blue/0.png", broken / "train/blue/0.png"]
    assert run("inference.py", *two, *flags) == 1  # nothing is left


def test_a_split_without_any_good_image_is_refused(tiny_images, trained, tmp_path, capsys):
    recipe, before = trained
    data = tmp_path / "data"
    shutil.copytree(tiny_images, data)
    for path in (data / "val").rglob("*.png"):
        path.write_bytes(b"x")
    model = ["--model", before / ARCH / "best.safetensors"]
    for line, which in (
        (train(data, recipe, tmp_path / "out", "--skip-broken"), "validation"),
        (train(data, recipe, tmp_path / "out", "--skip-broken", "--dry-run"), "validation"),
        (["test.py", "--data", data, *model, "--skip-broken", "--device", "cpu"], "test"),
    ):
        assert run(*line) == 1
        assert f"none of the 15 {which} images can be used: {data}/val/" in capsys.readouterr().err
    assert run("tools/check_data.py", "--data", data, "--skip-broken") == 1
    assert "none of the 15 val images can be read" in capsys.readouterr().out


def test_which_images_are_held_out_does_not_depend_on_the_flag(broken, trained, tmp_path, capsys):
    recipe, _ = trained
    data = tmp_path / "flat"
    shutil.copytree(broken / "train", data, symlinks=True)
    held_out = []
    for broken_too in (False, True):
        if broken_too:
            for name in BREAKS:
                if name.startswith("train/"):
                    (data / name[6:]).unlink(missing_ok=True)
                    shutil.copy(broken / "val/red/0.png", data / name[6:])
        save = tmp_path / f"out{broken_too}"
        assert run(*train(data, recipe, save, "--skip-broken", "--epochs", 1)) == 0
        held_out.append(read_checkpoint(save / ARCH / "checkpoint.safetensors")[0].held_out)
    assert held_out[0] == held_out[1]


def test_an_image_that_cannot_be_prepared_counts_too(tiny_images, trained, tmp_path, capsys):
    """Read it can be, but not scaled to a short edge of 16 pixels."""
    _, before = trained
    data = tmp_path / "data"
    shutil.copytree(tiny_images, data)
    cv2.imwrite(str(data / "val/red/9.png"), np.zeros((1, 900_000, 3), np.uint8))
    flags = ["--data", data, "--model", before / ARCH / "best.safetensors", "--device", "cpu"]
    path = tmp_path / "result.json"
    assert run("test.py", *flags, "--json", path) == 1
    assert "would grow" in capsys.readouterr().err
    assert run("test.py", *flags, "--json", path, "--skip-broken") == 0
    answer = json.loads(path.read_text())
    assert (answer["total"], answer["skipped"]["count"]) == (15, 1)


def test_lists_and_archives(tiny_images, trained, tmp_path, capsys):
    """A file that a list names and nobody has; an image in a tar archive that is cut short."""
    _, before = trained
    rows = [f"{path},{path.parent.name}" for path in sorted((tiny_images / "val").rglob("*.png"))]
    (tmp_path / "val.csv").write_text("\n".join([*rows, f"{tmp_path}/gone.png,red"]))
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        archive.add(tiny_images / "val", "val")
        path = tmp_path / "cut.png"
        path.write_bytes((tiny_images / "val/red/0.png").read_bytes()[:200])
        archive.add(path, "val/red/cut.png")
    for name in ("val.csv", "val.tar"):
        flags = ["--data", tmp_path / name, "--model", before / ARCH / "best.safetensors"]
        result = tmp_path / "result.json"
        assert run("test.py", *flags, "--device", "cpu", "--json", result) == 1
        assert run("test.py", *flags, "--device", "cpu", "--json", result, "--skip-broken") == 0
        answer = json.loads(result.read_text())
        assert (answer["total"], answer["skipped"]["count"]) == (15, 1)
        assert "skipped: 1 of 16 test images cannot be used" in capsys.readouterr().out
