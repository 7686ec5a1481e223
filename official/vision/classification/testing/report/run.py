"""The run that a network is the best of, for its report."""

import base64
import re
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional

from ...engine.console import read_metrics
from ...page import Say
from ...text import duration

_MOST = 1_000_000  # bytes of a file that is shown
_FOLDERS = re.compile(r"(?<![\w:/.~])/(?:[^\s/'\"`]+/)+")  # before the last name of a path
_EPOCHS = 300  # rows, at most; of more every n-th is shown


class RunPart(NamedTuple):
    """What a page shows of a run.

    Args:
        curves: a ``data:`` URI of curves.png, or nothing.
        columns, rows: the metrics of the epochs; the first of a row is the epoch.
        recipe, card: the lines of their files, without the folders of absolute paths.
    """

    lead: str
    curves: str
    columns: List[str]
    rows: List[List[str]]
    recipe: List[str]
    card: List[str]


def run_of(weights: Optional[str]) -> Optional[Path]:
    """The folder of the run that this file is the best of; None where it is not."""
    if not weights or Path(weights).name != "best.safetensors":
        return None
    folder = Path(weights).parent
    has_all = (folder / "metrics.jsonl").is_file() and (folder / "recipe.yaml").is_file()
    return folder if has_all else None


def read_run(folder: Path, say: Say) -> RunPart:
    """Read what a run has left, for its page."""
    rows = [row for row in read_metrics(folder) if isinstance(row, dict)]
    epochs = [row for row in rows if row.get("event") == "epoch"]
    wanted = {
        "val_top1": say("val top-1"),
        "val_macro_f1": say("val macro F1"),
        "val_loss": say("val loss"),
        "average_top1": say("top-1 of the averages"),
    }
    columns = [key for key in wanted if any(key in row for row in epochs)]
    every = -(-len(epochs) // _EPOCHS) or 1
    table = [
        [str(row.get("epoch", "")), *(_shown(row, key) for key in columns)]
        for row in epochs[::-every][::-1]
    ]
    return RunPart(
        _lead(rows, len(epochs), say),
        _picture(folder / "curves.png"),
        [wanted[key] for key in columns],
        table,
        _text(folder / "recipe.yaml"),
        _text(folder / "README.md"),
    )


def _lead(rows: List[Dict[str, Any]], epochs: int, say: Say) -> str:
    before, seconds = 0, 0.0
    for row in rows:
        if row.get("event") == "train":
            seconds += row["seconds_per_step"] * (row["step"] - before)
            before = row["step"]
    number, unit = duration(seconds).split()
    units = {
        "seconds": say("seconds"),
        "minutes": say("minutes"),
        "hours": say("hours"),
        "days": say("days"),
    }
    return say(
        "%(epochs)s epochs, %(steps)s steps, %(time)s in training steps.",
        epochs=epochs,
        steps=f"{before:,}",
        time=f"{number} {units[unit]}",
    )


def _shown(row: Dict[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, (int, float)):
        return "–"
    return f"{value:.4f}" if key.endswith("loss") else f"{value:.2f}"


def _picture(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MOST:
        return ""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _text(path: Path) -> List[str]:
    if not path.is_file() or path.stat().st_size > _MOST:
        return []
    text = path.read_text("utf-8", "replace").strip("\n")
    return _FOLDERS.sub("", text).split("\n")
