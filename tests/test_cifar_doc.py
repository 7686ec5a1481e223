"""docs/cifar.md against the records of the runs in docs/runs and the row of the weights."""

import json
import re
import statistics
from pathlib import Path

import pytest

from official.vision.classification.engine.recipe import load_recipe
from official.vision.classification.zoo.rows.own import OWN
from tests import documents

ROOT = Path(__file__).resolve().parents[1]
RUNS = ROOT / "docs" / "runs"
PAGE = (ROOT / "docs" / "cifar.md").read_text(encoding="utf-8")
TEST_IMAGES = 10_000


def rows():
    """The cells of every table, by the first one."""
    return {row[0]: row[1:] for table in documents.tables("docs/cifar.md") for row in table}


def end(run):
    """What its last epoch recorded; PyTorch's records are of epochs only."""
    lines = (RUNS / run / "metrics.jsonl").read_text().splitlines()
    return [each for each in map(json.loads, lines) if each.get("event", "epoch") == "epoch"][-1]


def test_every_run_has_its_row():
    linked = re.findall(r"^\| \[.*\]\((runs/[\w.-]+)\)", PAGE, re.MULTILINE)
    assert sorted(linked) == sorted(f"runs/{each.name}" for each in RUNS.iterdir())


@pytest.mark.parametrize("run", sorted(each.name for each in RUNS.iterdir()))
def test_the_row_says_how_the_run_ended(run):
    (row,) = (cells for name, cells in rows().items() if f"](runs/{run})" in name)
    last = end(run)
    assert last["epoch"] == 30
    if "right" in last:  # PyTorch's
        expected = [f"{last['right']:,}", "–"]
    else:
        counts = [
            round(last[f"{key}_top1"] / 100 * TEST_IMAGES)
            for key in ("val", "average")
            if f"{key}_top1" in last
        ]
        expected = [f"{count:,}" for count in counts] + ["–"] * (2 - len(counts))
    assert row[-2:] == expected


def accuracies(recipe):
    """How the runs of all seeds with a recipe ended: by their mean weights, or the last ones."""
    runs = [run.name for run in RUNS.iterdir() if re.fullmatch(rf"{recipe}(_seed\d)?", run.name)]
    return [
        last.get("average_top1") or last.get("val_top1") or last["top1"] for last in map(end, runs)
    ]


def test_means_over_seeds():
    table = next(table for table in documents.tables("docs/cifar.md") if table[0][0] == "recipe")
    (_, *head), counts, means, differences = ([*row] for row in table)
    recipes = [re.search(r"\(runs/([\w.-]+)\)", cell).group(1) for cell in head]
    values = [accuracies(recipe) for recipe in recipes]
    assert counts[1:] == [str(len(each)) for each in values]
    for cell, found in zip(means[1:], values):
        deviation = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
        assert cell == f"{statistics.mean(found):.2f}{deviation}"
    peer = statistics.mean(values[0])
    told = [f"{statistics.mean(each) - peer:+.2f}" for each in values[1:]]
    assert differences[2:] == told


@pytest.mark.parametrize("run", ["resnet20_cifar_30e", "resnet20_cifar_30e_seed1"])
def test_the_recipe_is_the_one_that_was_run(run):
    """But for the precision, which --precision has changed."""
    run = load_recipe(str(RUNS / run / "recipe.yaml"))
    assert run.precision == "bf16"
    assert run.model_copy(update={"precision": "fp32"}) == load_recipe("resnet20_cifar_30e")


def test_the_card_has_the_pages_numbers():
    (row,) = OWN
    top1, top5 = rows()["10,000 test images, JPEG"]
    counts = [int(cell.split(" ")[0].replace(",", "")) for cell in (top1, top5)]
    assert [100 * count / TEST_IMAGES for count in counts] == [row.top1, row.top5]
