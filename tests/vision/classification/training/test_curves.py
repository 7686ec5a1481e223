import json

import cv2

from official.vision.classification.training.curves import draw_curves


def write_metrics(folder, top1):
    rows = [
        {"event": "train", "step": s, "epoch": s / 2, "lr": 0.1, "loss": 2.0 / s, "top1": top1}
        for s in range(1, 9)
    ]
    rows += [
        {"event": "epoch", "step": 2 * e, "epoch": e, "val_loss": 1 / e, "val_top1": top1}
        for e in range(1, 5)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_picture_shows_the_metrics(tmp_path):
    write_metrics(tmp_path, top1=40.0)
    low = cv2.imread(str(draw_curves(tmp_path)))
    write_metrics(tmp_path, top1=90.0)
    high = cv2.imread(str(draw_curves(tmp_path)))
    assert low.shape == high.shape == (360, 1200, 3)
    # Only the accuracy in the middle has changed, and its line has risen.
    changed = (low != high).any(axis=2)
    columns = changed.any(axis=0).nonzero()[0]
    assert 400 < columns.min() < columns.max() < 800
    row_of_line = [
        (changed & (picture.min(axis=2) < 240)).nonzero()[0].mean() for picture in (low, high)
    ]
    assert row_of_line[0] > row_of_line[1] + 60


def test_a_run_without_metrics_yet(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert draw_curves(tmp_path).exists()
