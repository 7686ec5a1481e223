"""Compare training runs: accuracy, time, and what differs between their recipes.

runs            python tools/compare_runs.py output/a/resnet18 output/b/resnet18
as a picture    python tools/compare_runs.py output/a/resnet18 output/b/resnet18 --draw runs.png
on one test     python tools/compare_runs.py output/a/resnet18 output/b/resnet18 --data photos
as a page       python tools/compare_runs.py output/a/resnet18 output/b/resnet18 --data photos --html both.html
two reports     python tools/compare_runs.py report-a report-b --html both.html

A run is the folder that train.py leaves: <save>/<arch>. For --html it may also be a folder that
test.py --report has written; without --data the tests are those of such reports.
"""  # noqa: E501

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from ..engine import flags
from ..engine.class_scores import wilson
from ..engine.console import read_metrics
from ..engine.files import check_target, refuse_inside
from ..errors import UsageError
from ..page import language_of
from ..readers.yaml_file import read_yaml_file
from ..testing.report.answers import TABLE
from ..testing.report.comparison import read_tested, write_comparison
from ..text import aligned, duration, printable


class Run(NamedTuple):
    """A run, by what is in its folder."""

    folder: Path
    recipe: Dict[str, Any]  # by dotted keys
    rows: List[Dict[str, Any]]  # of metrics.jsonl

    @property
    def epochs(self) -> List[Dict[str, Any]]:
        return [row for row in self.rows if row["event"] == "epoch"]

    @property
    def best(self) -> Dict[str, Any]:
        """The row of the epoch that best.safetensors is of, the first of the highest."""
        metric = self.recipe.get("best_metric", "top1")
        sign = -1 if metric == "loss" else 1
        return max(self.epochs, key=lambda row: sign * row[f"{prefix(row)}_{metric}"])

    @property
    def seconds(self) -> float:
        """In training steps; tests, checkpoints and pauses are not counted."""
        before, total = 0, 0.0
        for row in self.rows:
            if row["event"] == "train":
                total += row["seconds_per_step"] * (row["step"] - before)
                before = row["step"]
        return total


def prefix(row: Dict[str, Any]) -> str:
    """Of the metrics by which an epoch counts: those of the averaged weights, if there are."""
    return "average" if "average_top1" in row else "val"


def read_run(folder: Path) -> Run:
    """Read what a run has left.

    Raises:
        UsageError: naming the file that is missing or damaged.
    """
    try:
        rows = read_metrics(folder)
        recipe = read_yaml_file(folder / "recipe.yaml")
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}; give the folder of a run, <save>/<arch>"
        ) from None
    except ValueError as error:
        raise UsageError(f"{folder}: is not the folder of a run: {error}") from None
    if not isinstance(recipe, dict) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{folder}: is not the folder of a run")
    run = Run(folder, dict(dotted(recipe)), rows)
    if not run.epochs:
        raise UsageError(f"{folder}: the run has not come to the end of an epoch yet")
    return run


def dotted(values: Dict[str, Any], before: str = "") -> Iterator[Tuple[str, Any]]:
    """The keys of a recipe and of its sections."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def differing(runs: Sequence[Run]) -> List[str]:
    """The keys that do not have one value in all recipes."""
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    return [key for key in keys if any(shown(r, key) != shown(runs[0], key) for r in runs)]


def shown(run: Run, key: str) -> str:
    return str(run.recipe[key]) if key in run.recipe else "-"


def table(runs: Sequence[Run]) -> List[List[str]]:
    """A head and a row for each run."""
    keys = differing(runs)
    head = ["run", "best epoch", "val top-1", "macro F1", "test top-1", "in steps", *keys]
    lines = [head]
    for run in runs:
        best, by = run.best, prefix(run.best)
        tests = [row["test_top1"] for row in run.rows if row["event"] == "test"]
        lines.append(
            [
                printable(str(run.folder)),
                f"{best['epoch']} of {run.epochs[-1]['epoch']}",
                f"{best[f'{by}_top1']:.3f}",
                f"{best[f'{by}_macro_f1']:.3f}" if f"{by}_macro_f1" in best else "-",
                f"{tests[-1]:.3f}" if tests else "-",
                duration(run.seconds),
                *(printable(shown(run, key)) for key in keys),
            ]
        )
    return lines


def tested(
    runs: Sequence[Run], args: argparse.Namespace, reports: Sequence[Path]
) -> List[List[str]]:
    """A head and a row for the test of each run's best weights on one data set.

    Args:
        reports: folders for them, where --html wants them.
    """
    from ..api import test  # MegEngine takes its time

    given = {"data": args.data, "split": args.split, "device": args.device}
    lines = [["network", "right", "of", "top-1", "95 % interval", "macro F1", "balanced"]]
    for run, report in zip(runs, reports):
        wanted = {"report": str(report)} if args.html else {}
        got = test(model=run.folder / "best.safetensors", **given, **wanted)
        low, high = wilson(got["top1_correct"], got["total"])
        lines.append(
            [
                printable(str(run.folder)),
                *(str(got["top1_correct"]), str(got["total"]), f"{got['top1']:.3f}"),
                f"{100 * low:.1f} to {100 * high:.1f}",
                *(f"{got['macro_f1']:.3f}", f"{got['balanced_accuracy']:.3f}"),
            ]
        )
    return lines


def show(lines: List[List[str]]) -> None:
    """A table on the terminal, all columns to the left."""
    sys.stdout.writelines(f"{line}\n" for line in aligned(lines, left=range(len(lines[0]))))


def draw(runs: Sequence[Run], path: Path) -> None:
    """Validation accuracy by epoch, a line for each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="tight")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for run in runs:
        epochs = [row["epoch"] for row in run.epochs]
        values = [row[f"{prefix(row)}_top1"] for row in run.epochs]
        axes.plot(epochs, values, "o-", label=printable(str(run.folder)).replace("$", r"\$"))
    axes.set(xlabel="epoch", ylabel="validation top-1 accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=120)


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("compare_runs.py", __doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run, <save>/<arch>")
    parser.add_argument("--draw", metavar="FILE", help="draw the accuracies by epoch (PNG or SVG)")
    parser.add_argument("-d", "--data", metavar="PATH", help="test all of them on this data set")
    parser.add_argument("--split", choices=("train", "val", "test"), help="which part of it")
    parser.add_argument(
        "--html", metavar="FILE", help="write a page on two tests side by side, image by image"
    )
    flags.add_language(parser)
    flags.add_device(parser)
    return parser


def start(args: argparse.Namespace) -> int:
    """Compare as the flags say."""
    if args.draw:
        check_target("--draw", Path(args.draw))
        if Path(args.draw).suffix.lower() not in (".png", ".svg"):
            raise UsageError(f"--draw {args.draw}: is neither .png nor .svg")
    if args.split and not args.data:
        raise UsageError("--split needs --data")
    folders = [Path(run) for run in args.runs]
    if args.html:
        check_target("--html", Path(args.html))
        if args.data:
            refuse_inside("--html", Path(args.html), Path(args.data))
        if len(folders) != 2:
            raise UsageError(f"--html: compares two tests, and {len(folders)} are given")
    if args.html and not args.data and all((folder / TABLE).exists() for folder in folders):
        return compare_tests(folders, folders, args)
    runs = [read_run(folder) for folder in folders]
    show(table(runs))
    if args.draw:
        draw(runs, Path(args.draw))
    with tempfile.TemporaryDirectory() as place:
        reports = [Path(place) / str(number) for number in range(len(runs))]
        if args.data:
            sys.stdout.write("\n")
            show(tested(runs, args, reports))
        if args.html:
            own = [folder / "report" for folder in folders]  # of train.py --report
            return compare_tests(folders, reports if args.data else own, args)
    return 0


def compare_tests(folders: List[Path], reports: List[Path], args: argparse.Namespace) -> int:
    """Write the page on the tests whose reports are in these folders."""
    names = [folder.name for folder in folders]
    if names[0] == names[1]:  # of two runs, both names are the network's
        names = [folder.resolve().parent.name for folder in folders]
    tests = [read_tested(report, name) for report, name in zip(reports, names)]
    write_comparison(Path(args.html), tests[0], tests[1], language_of(args.lang))
    sys.stdout.write(f"page: {args.html}\n")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
