"""The notebook in docs runs from its first cell to its last, on drawn images and fewer epochs."""

import json
from pathlib import Path

import pytest

from official.vision.classification.training import trainer

ROOT = Path(__file__).resolve().parents[1]


def test_fine_tuning(tiny_images, tmp_path, monkeypatch):
    notebook = json.loads((ROOT / "docs" / "fine-tuning.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    settings = {
        "PHOTOS": str(tiny_images / "train"),
        "OUTPUT": str(tmp_path),
        "EPOCHS": 1,
        "ARCH": "resnet20_cifar",
        "PRETRAINED": False,
        "CONFIG": str(tmp_path / "tiny.yaml"),
    }
    (tmp_path / "tiny.yaml").write_text("epochs: 2\nbatch_size: 4\noptimizer: {lr: 0.01}\n")
    monkeypatch.setattr(trainer, "draw_curves", lambda folder: None)
    names = {}
    exec(cells[0], names)
    assert settings.keys() <= names.keys()
    names.update(settings)
    for cell in cells[1:]:
        exec(cell, names)
    assert names["answer"]["total"] == 6  # of three classes with eight images, two each
    assert names["answer"]["top1"] == pytest.approx(names["run"].metrics["val_top1"], rel=1e-6)
    assert names["named"]["pred_class"] in ("blue", "green", "red")
