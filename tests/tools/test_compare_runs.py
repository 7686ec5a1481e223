import json

import pytest
import yaml

from tests.scripts import load_script

script = load_script("tools/compare_runs.py")
differing, main, read_run = script.differing, script.main, script.read_run


def written(folder, top1, **recipe):
    """A run of ten steps per epoch, half a second each."""
    folder.mkdir(parents=True)
    rows = []
    for epoch, value in enumerate(top1, 1):
        rows.append({"event": "train", "step": 10 * epoch, "seconds_per_step": 0.5})
        rows.append({"event": "epoch", "step": 10 * epoch, "epoch": epoch, "val_top1": value})
        rows[-1].update(val_macro_f1=value - 1, val_loss=1 / value)
    rows.append({"event": "test", "step": 10 * epoch, "epoch": epoch, "test_top1": 55.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"epochs": len(top1), **recipe}))
    return folder


@pytest.fixture()
def runs(tmp_path):
    return [
        written(tmp_path / "a", [50.0, 70.0, 60.0], optimizer={"lr": 0.1, "type": "sgd"}),
        written(tmp_path / "b", [40.0, 45.0, 80.0], optimizer={"lr": 0.2, "type": "sgd"}, ema=None),
    ]


def cells(out):
    return [[cell for cell in line.split("  ") if cell.strip()] for line in out.splitlines()]


def test_a_table(runs, capsys):
    assert main([*map(str, runs)]) == 0
    head, *rows = ([c.strip() for c in line] for line in cells(capsys.readouterr().out))
    assert head == [
        *("run", "best epoch", "val top-1", "macro F1", "test top-1", "in steps"),
        *("optimizer.lr", "ema"),
    ]
    assert rows[0] == [
        str(runs[0]),
        "2 of 3",
        "70.000",
        "69.000",
        "55.000",
        "15.0 seconds",
        "0.1",
        "-",
    ]
    assert rows[1] == [
        *(str(runs[1]), "3 of 3", "80.000", "79.000", "55.000", "15.0 seconds", "0.2", "None")
    ]
    assert differing([read_run(runs[0])]) == []


def test_the_metric_that_best_was_chosen_by(tmp_path):
    run = read_run(written(tmp_path / "a", [50.0, 70.0, 60.0], best_metric="loss"))
    assert run.best["epoch"] == 2
    rows = [{**row, "average_top1": -row["val_top1"]} for row in run.epochs]
    assert run._replace(recipe={}, rows=rows).best["epoch"] == 1


@pytest.mark.parametrize("name", ["runs.png", "runs.svg"])
def test_a_picture(runs, tmp_path, name):
    assert main([*map(str, runs), "--draw", str(tmp_path / name)]) == 0
    start = (tmp_path / name).read_bytes()[:5]
    assert start == (b"\x89PNG\r" if name.endswith("png") else b"<?xml")


def test_one_data_set_for_all(tiny_images, tiny_recipe, tmp_path, capsys, monkeypatch):
    from official.vision.classification.api import test, train
    from official.vision.classification.training import trainer

    monkeypatch.setattr(trainer, "draw_curves", lambda folder: None)
    keys = {"config": str(tiny_recipe), "device": "cpu", "epochs": 2}
    found = [
        train(tiny_images, "resnet20_cifar", save=tmp_path / str(seed), seed=seed, **keys)
        for seed in (0, 1)
    ]
    capsys.readouterr()
    runs = [str(run.folder) for run in found]
    assert main([*runs, "--data", str(tiny_images), "--device", "cpu"]) == 0
    table = capsys.readouterr().out.split("network", 1)[1].splitlines()[1:]
    rows = [line.split() for line in table if line.startswith(str(tmp_path))]
    for run, row in zip(found, rows):
        answer = test(tiny_images, run.best, device="cpu")
        assert row[1:4] == [str(answer["top1_correct"]), "15", f"{answer['top1']:.3f}"]
    page = tmp_path / "both.html"
    words = ["--data", str(tiny_images), "--device", "cpu", "--html", str(page), "--lang", "en"]
    assert main([*runs, *words]) == 0
    text = page.read_text("utf-8")
    assert "<h3>0</h3>" in text and "<h3>1</h3>" in text  # of two networks of one name, the folders
    assert str(tmp_path) not in text
    assert main([*runs, "--html", str(page)]) == 2  # neither a data set nor tests to compare
    assert "report/predictions.csv: No such file" in capsys.readouterr().err


def test_what_is_no_run(runs, tmp_path, capsys):
    def refused(*arguments):
        assert main([*map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "no/metrics.jsonl: No such file" in refused(tmp_path / "no")
    assert "is neither .png nor .svg" in refused(runs[0], "--draw", tmp_path / "x.txt")
    assert "--split needs --data" in refused(runs[0], "--split", "val")
    (runs[0] / "recipe.yaml").write_text("[]")
    assert "is not the folder of a run" in refused(runs[0])
    (runs[1] / "metrics.jsonl").write_text("")
    assert "has not come to the end of an epoch" in refused(runs[1])
