"""The table of docs/fine-tuning.md against the runs that it has the means of."""

import json
from statistics import mean, stdev

from tests import documents
from tests.documents import ROOT

RUNS = [json.loads(line) for line in (ROOT / "docs" / "fine_tuning.jsonl").open(encoding="utf-8")]


def told(values):
    return str(values[0]) if len(values) == 1 else f"{mean(values):.1f} ± {stdev(values):.1f}"


def test_the_means_are_those_of_the_runs():
    (table,) = (
        table for table in documents.tables("docs/fine-tuning.md") if table[0][0] == "photographs"
    )
    found = {}
    for run in RUNS:
        found.setdefault((f"{run['photographs']:,}", run["recipe"]), []).append(run)
    assert [tuple(row[:2]) for row in table[1:]] == list(found)
    for (_, _, seeds, *cells), runs in zip(table[1:], found.values()):
        assert [run["seed"] for run in runs] == list(range(int(seeds)))
        assert cells == [told([run[split] for run in runs]) for split in ("validation", "test")]
