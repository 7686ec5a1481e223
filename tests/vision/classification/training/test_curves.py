import json
import math

import cv2
import numpy as np
import pytest

from official.vision.classification.training.curves import (
    best_epoch,
    draw_curves,
    figure_of,
    robust_limits,
    smoothed,
)


def metrics(top1, losses=(2.0, 1.0, 0.5, 0.25), average=()):
    """Of four epochs of two steps."""
    rows = [
        {"event": "train", "step": s, "epoch": s / 2, "lr": 0.1, "loss": 2.0 / s, "top1": 30.0}
        for s in range(1, 9)
    ]
    for e, (value, loss) in enumerate(zip(top1, losses), 1):
        rows.append(
            {"event": "epoch", "step": 2 * e, "epoch": e, "val_loss": loss, "val_top1": value}
        )
        if average:
            rows[-1].update(average_top1=average[e - 1], average_loss=loss / 2)
    return rows


def lines(axes):
    """What is drawn, by the name in the legend."""
    return {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()}


def test_the_picture_is_of_the_metrics_in_the_folder(tmp_path):
    pictures = []
    for top1 in ((40, 41, 42, 43), (40, 41, 42, 80)):
        text = "".join(json.dumps(row) + "\n" for row in metrics(top1))
        (tmp_path / "metrics.jsonl").write_text(text)
        pictures.append(cv2.imread(str(draw_curves(tmp_path))))
    assert pictures[0].shape == pictures[1].shape == (360, 1200, 3)
    # Only the accuracy in the middle has changed.
    changed = (pictures[0] != pictures[1]).any(axis=2).any(axis=0).nonzero()[0]
    assert 400 < changed.min() < changed.max() < 800


def test_the_lines_are_the_metrics():
    loss, accuracy, rate = figure_of(metrics((40, 60, 50, 55), average=(30, 70, 71, 71))).axes
    assert lines(loss)["validation"] == [[1, 2.0], [2, 1.0], [3, 0.5], [4, 0.25]]
    assert lines(loss)["averaged weights"] == [[1, 1.0], [2, 0.5], [3, 0.25], [4, 0.125]]
    assert lines(accuracy)["averaged weights"] == [[1, 30], [2, 70], [3, 71], [4, 71]]
    assert "best: 71.0 %, epoch 3" in lines(accuracy)
    assert [3, 71] in accuracy.get_lines()[-2].get_xydata().tolist()
    assert rate.get_lines()[0].get_ydata().tolist() == [0.1] * 8
    low, high = accuracy.get_ylim()
    assert low <= 30 and 71 <= high <= 100


def test_without_an_average():
    _, accuracy, _ = figure_of(metrics((40, 60, 50, 60))).axes
    assert "averaged weights" not in lines(accuracy)
    assert best_epoch([row for row in metrics((40, 60, 50, 60)) if row["event"] == "epoch"]) == (
        *(2, 60),
    )
    assert best_epoch([]) is None


def test_the_best_epoch_is_the_one_that_was_kept():
    """A linear probe, though a later epoch was better by less than is asked of it; or by F1."""
    rows = [row for row in metrics((40, 60, 50, 61)) if row["event"] == "epoch"]
    for row, best in zip(rows, (True, True, False, False)):
        row["best"] = best
    assert best_epoch(rows) == (rows[1]["epoch"], 60)


@pytest.mark.parametrize("broken", [1e9, math.nan, math.inf])
def test_one_bad_step_hides_nothing(broken):
    rows = metrics((40, 60, 50, 55))
    for step in range(400):
        rows.insert(0, {**rows[0], "epoch": 4 * step / 400, "loss": 1.0})
    rows[7]["loss"] = broken
    loss = figure_of(rows).axes[0]
    low, high = loss.get_ylim()
    assert low < 0.25 and 2.0 < high < 4


def test_the_median_around_each_value():
    """Against numpy's, where the window is whole; no shift at the ends."""
    values = np.random.default_rng(0).normal(size=600)
    found = np.array(smoothed(values.tolist()))
    expected = np.median(np.lib.stride_tricks.sliding_window_view(values, 11), axis=1)
    assert np.allclose(found[5:-5], expected)
    assert (found[0], found[-1]) == (values[0], values[-1])
    straight = np.arange(600.0)
    assert np.allclose(smoothed(straight.tolist()), straight)
    assert smoothed([1.0, math.nan, 3.0]) == [1.0, 2.0, 3.0]


def test_limits_of_nothing_and_of_one_value():
    assert robust_limits([], []) == (0.0, 1.0)
    low, high = robust_limits([], [5.0])
    assert low < 5 < high
    low, high = robust_limits([0.0], [])
    assert low < 0 < high


def test_a_run_without_metrics_yet(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert draw_curves(tmp_path).exists()
