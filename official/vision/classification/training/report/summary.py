"""The end of a run in a few lines: what was reached, where it is, and what to type next."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Sequence

from ...data.splits import TrainingData
from ...engine.class_scores import MOST_IN_MATRIX, Best, ClassScores, wilson
from ...engine.console import read_metrics
from ...engine.evaluation import Result
from ...text import duration, printable, seven_digits
from ..run_folder import RunFolder

if TYPE_CHECKING:
    from ..trainer import TrainConfig

_BY = {
    "top1": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "loss": "loss",
}


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Args:
        best_top1: of the best epoch, in per cent.
        seconds: since it was started or resumed.
        started_from: which weights, in a line; empty for random ones.
    """

    config: "TrainConfig"
    folder: RunFolder
    data: TrainingData
    best: Best
    best_top1: float
    seconds: float
    device: str
    started_from: str

    @property
    def row(self) -> Dict[str, Any]:
        """The metrics of the best epoch; empty where another folder has them."""
        return self._last("epoch")

    @property
    def test(self) -> Dict[str, Any]:
        """The metrics of the images that the best epoch was not chosen by; empty without them."""
        return self._last("test")

    def _last(self, event: str) -> Dict[str, Any]:
        rows = read_metrics(self.folder.path) if self.folder.metrics.exists() else []
        found = [r for r in rows if r["event"] == event and r["epoch"] == self.best.epoch]
        return found[-1] if found else {}

    @property
    def kept_probe(self) -> bool:
        """Whether no epoch of training was better than the linear probe before the first."""
        return self.config.recipe.probe and self.best.epoch == 0

    @property
    def prefix(self) -> str:
        """Of the metrics that the best epoch was chosen by."""
        return "average" if "average_top1" in self.row else "val"


def metrics_of(
    prefix: str, result: Result, scores: ClassScores, names: Sequence[str]
) -> Dict[str, Any]:
    """A test as numbers for a row of metrics.jsonl; of many classes without those of each."""
    found: Dict[str, Any] = {"loss": result.loss, "top1": result.top1, "top5": result.top5}
    found.update(scores.means())
    if len(scores.present) <= MOST_IN_MATRIX:
        found["classes"] = {
            name: {key: seven_digits(value) for key, value in values.items()}
            for name, values in scores.by_class(names).items()
        }
        found["confusion"] = scores.confusion(names)
    return {f"{prefix}_{name}": value for name, value in found.items()}


def accuracy(row: Dict[str, Any], prefix: str, images: int) -> str:
    """A row's accuracy with its 95 % interval, in words."""
    right = round(row[f"{prefix}_top1"] * images / 100)
    low, high = wilson(right, images)
    return (
        f"{right} of {images} right, {100 * right / images:.1f} % (95 % interval {100 * low:.1f} "
        f"to {100 * high:.1f}), macro F1 {row[f'{prefix}_macro_f1']:.1f} %"
    )


def summary(run: Run) -> List[str]:
    """What is said when a run has come to its end."""
    epochs = run.config.recipe.epochs
    lines = [f"done: best Acc@1 {run.best_top1:.3f}; results are in {run.folder.path}"]
    if run.kept_probe and not run.config.linear_probe:
        lead = run.best.lead
        lines.append(
            f"the linear probe was kept: by {_BY[run.best.metric]}, no epoch of training was better"
            + (f" by more than its standard error, {lead:.1f} %" if lead else "")
        )
    if run.row:
        which = "linear probe" if run.kept_probe else f"epoch {run.best.epoch} of {epochs}"
        lines.append(
            f"validation: {which}, chosen by {_BY[run.best.metric]}: "
            + accuracy(run.row, run.prefix, len(run.data.val))
        )
    if run.test:
        assert run.data.test is not None
        lines.append(
            "test: the same network on images that it was not chosen by: "
            + accuracy(run.test, "test", len(run.data.test))
        )
    lines.append(f"time: {duration(run.seconds)}, since this start of the run")
    lines.append("files: best.safetensors (the network), README.md (its card), curves.png, …")
    return [*lines, *(f"next: {command}" for command in next_commands(run))]


def next_commands(run: Run) -> List[str]:
    """What to type next: a report on the images, and the classes of a picture."""
    best = run.folder.best
    report = run.folder.path / "report"
    test = [*_script("test"), "--data", run.config.data, "--model", str(best)]
    test += ["--split", "test"] if run.data.test is not None else []
    test += ["--skip-broken"] if run.config.skip_broken else []
    test += ["--report", str(report)]
    name = [*_script("inference"), "--model", str(best), "--image", "PHOTO"]
    return [printable(" ".join(map(shlex.quote, command))) for command in (test, name)]


def _script(name: str) -> List[str]:
    """How the script is called here: as a command that pip has installed, or as a file."""
    called = Path(sys.argv[0]).name
    if called.startswith("resnet "):
        return ["resnet", {"inference": "predict"}.get(name, name)]
    if called.startswith("resnet-"):
        return [f"resnet-{name}"]
    return ["python", f"{name}.py"]
