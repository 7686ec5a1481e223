"""The part of a page that is about the run of the network."""

import json

import pytest

from official.vision.classification.page import speaker
from official.vision.classification.testing.report.run import read_run, run_of

ROWS = [
    {"event": "train", "step": 10, "seconds_per_step": 0.5},
    {"event": "epoch", "step": 10, "epoch": 1, "val_top1": 50.0, "val_loss": 1.25},
    {"event": "train", "step": 30, "seconds_per_step": 0.25},
    {"event": "epoch", "step": 30, "epoch": 2, "val_top1": 75.125, "val_loss": 0.5},
    {"event": "test", "step": 30, "epoch": 2, "test_top1": 70.0},
]


@pytest.fixture()
def folder(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "recipe.yaml").write_text("epochs: 2\noptimizer:\n  lr: 0.1\n")
    (tmp_path / "best.safetensors").write_bytes(b"")
    return tmp_path


def test_which_weights_are_of_a_run(folder, tmp_path):
    assert run_of(str(folder / "best.safetensors")) == folder
    assert run_of(str(folder / "checkpoint.safetensors")) is None
    assert run_of(None) is None and run_of("resnet50") is None
    (folder / "recipe.yaml").unlink()
    assert run_of(str(folder / "best.safetensors")) is None


def test_what_is_told(folder):
    part = read_run(folder, speaker("en"))
    assert part.lead == "2 epochs, 30 steps, 10.0 seconds in training steps."
    assert part.columns == ["val top-1", "val loss"]
    assert part.rows == [["1", "50.00", "1.2500"], ["2", "75.12", "0.5000"]]
    assert part.recipe == ["epochs: 2", "optimizer:", "  lr: 0.1"]
    assert (part.curves, part.card) == ("", [])


def test_paths_of_this_machine_are_left_out(folder):
    (folder / "README.md").write_text(
        "python test.py --data /home/me/photos --model '/data/out put/r18/best.safetensors'\n"
        "see https://example.org/a/b and a/b/c, 1/2, ../x/y\n"
    )
    first, second = read_run(folder, speaker("en")).card
    assert "/home" not in first and "--data photos" in first and "/data" not in first
    assert second == "see https://example.org/a/b and a/b/c, 1/2, ../x/y"


def test_of_a_thousand_epochs_the_last_is_there(folder):
    rows = [{"event": "epoch", "step": n, "epoch": n, "val_top1": 1.0} for n in range(1, 1001)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    part = read_run(folder, speaker("en"))
    assert len(part.rows) == 250 and part.rows[-1][0] == "1000" and part.rows[0][0] == "4"
