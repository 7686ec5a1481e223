"""Trackers, by stand-ins for their packages that write down what they are told."""

import sys
import types

import pytest

from official.vision.classification.engine.console import Console
from official.vision.classification.engine.trackers import TRACKERS, open_trackers
from official.vision.classification.errors import UsageError

ROWS = [
    {"event": "train", "step": 2, "epoch": 0.5, "loss": 1.5, "lr": 0.1},
    {"event": "epoch", "step": 4, "val_top1": 40, "best": True, "val_classes": {"a": 1}},
]
EXPECTED = [
    ({"train/epoch": 0.5, "train/loss": 1.5, "train/lr": 0.1}, 2),
    ({"epoch/val_top1": 40}, 4),
]


def wandb(said):
    def init(**given):
        said["opened"] = given
        return types.SimpleNamespace(
            log=lambda numbers, step: said["rows"].append((numbers, step)),
            finish=lambda: said["closed"].append(True),
        )

    return {"init": init}


def mlflow(said):
    return {
        "set_experiment": lambda name: None,
        "start_run": lambda run_name: said["opened"].update(name=run_name),
        "log_params": lambda values: said["opened"].update(config=values),
        "log_metrics": lambda numbers, step: said["rows"].append((numbers, step)),
        "end_run": lambda: said["closed"].append(True),
    }


def swanlab(said):
    return {
        "init": lambda **given: said["opened"].update(name=given["experiment_name"], **given),
        "log": lambda numbers, step: said["rows"].append((numbers, step)),
        "finish": lambda: said["closed"].append(True),
    }


STANDINS = {"wandb": wandb, "mlflow": mlflow, "swanlab": swanlab}
CONFIG = {"epochs": 3, "optimizer": {"lr": 0.1}}


@pytest.fixture()
def tracker(monkeypatch):
    """Puts a stand-in in place of a package; what it is told."""

    def put(name):
        said = {"opened": {}, "rows": [], "closed": []}
        package = types.ModuleType(name)
        vars(package).update(STANDINS[name](said))
        monkeypatch.setitem(sys.modules, name, package)
        return said, package

    return put


def test_these_are_all():
    assert set(TRACKERS) == {"tensorboard", *STANDINS}


@pytest.mark.parametrize("name", STANDINS)
def test_rows_arrive(tracker, tmp_path, name):
    said, _ = tracker(name)
    console = Console(folder=tmp_path / "out" / "resnet18", trackers=[name, name], config=CONFIG)
    console.folder.mkdir(parents=True)
    console.rewind_metrics(0)
    assert said["opened"] == {}  # a run that is refused leaves nothing there
    for row in ROWS:
        console.metrics(**row)
    assert said["rows"] == EXPECTED and not said["closed"]
    assert said["opened"]["name"] == "out/resnet18"
    assert said["opened"]["config"] in (CONFIG, {"epochs": 3, "optimizer.lr": 0.1})
    console.close()
    console.close()
    assert said["closed"] == [True]


@pytest.mark.parametrize("name", STANDINS)
def test_a_package_that_is_missing(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=f"--log {name}: needs the package {name}; pip install"):
        open_trackers([name], tmp_path, {})


@pytest.mark.parametrize("when", ["opening", "logging", "closing"])
def test_a_tracker_that_fails_does_not_end_the_run(tracker, tmp_path, caplog, when):
    said, package = tracker("mlflow")

    def fail(*args, **kwargs):
        raise ConnectionError("no\nserver")

    part = {"opening": "start_run", "logging": "log_metrics", "closing": "end_run"}[when]
    setattr(package, part, fail)
    console = Console(folder=tmp_path, trackers=["mlflow"])
    for row in ROWS:
        console.metrics(**row)
    console.close()
    assert [record.getMessage() for record in caplog.records] == [
        "--log mlflow: ConnectionError: no server; the run goes on without it, and metrics.jsonl "
        "has all numbers"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert len(said["rows"]) == (2 if when == "closing" else 0)


def test_other_ranks_open_none(tracker, tmp_path):
    said, _ = tracker("wandb")
    console = Console(speak=False, folder=tmp_path, trackers=["wandb"])
    console.metrics(**ROWS[0])
    console.close()
    assert said["opened"] == {} and not said["rows"]
