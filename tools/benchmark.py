#!/usr/bin/env python3
"""Measure how fast networks, training and the loader are on this machine.

what it is like       python tools/benchmark.py
several at once       python tools/benchmark.py --arch resnet18 resnet50 --batch-size 1 32
your own training     python tools/benchmark.py --only training loader --data DIR -c my.yaml -b 64
half precision        python tools/benchmark.py --precision bf16 --json result.json

Every row is a process of its own that warms up and then runs several rounds; a row tells their
median and standard deviation. Without --data the loader reads JPEG files of drawn shapes.
The comparison with PyTorch and stock MegEngine is "make benchmark".
"""

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official import startup  # noqa: E402

if __name__ == "__main__":
    startup.prepare()

from benchmarks import machine, summary  # noqa: E402
from benchmarks.interleave import Configuration, run_in_turns  # noqa: E402
from official.vision.classification import __version__  # noqa: E402
from official.vision.classification.data.folder import load_split  # noqa: E402
from official.vision.classification.engine import flags  # noqa: E402
from official.vision.classification.engine.device import choose_device, cpu_threads  # noqa: E402
from official.vision.classification.engine.files import check_target, write_atomically  # noqa: E402
from official.vision.classification.engine.recipe import load_recipe  # noqa: E402
from official.vision.classification.errors import UsageError, UserError  # noqa: E402
from official.vision.classification.zoo.models import arch_of, image_size  # noqa: E402
from tools.make_shapes import CLASSES, render  # noqa: E402

WHAT = ("inference", "training", "loader")
DRAWN, DRAWN_SIZE = 100, 400  # JPEG files, at least, and their edge in pixels
WARMUP = 3  # batches
BUSY = 0.1  # of a core: what other programs may use before it is told

COLUMNS = ("images/s", "deviation", "ms/batch", "memory (MB)")


class Case(NamedTuple):
    """What a row is about."""

    what: str
    arch: str  # "" for the loader
    batch: int
    size: int

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.what, self.arch, f"batch {self.batch}")))


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("benchmark.py", __doc__)
    parser.add_argument(
        *("-a", "--arch", "--model-name"),
        nargs="+",
        default=["resnet50"],
        metavar="NAME",
        help="networks or published rows (default: resnet50)",
    )
    parser.add_argument(
        *("-b", "--batch-size"),
        nargs="+",
        type=flags.positive,
        default=[16],
        metavar="N",
        help="images of a batch (default: 16)",
    )
    parser.add_argument(
        "--size", type=flags.positive, metavar="PX", help="image size (default: the network's)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=WHAT, default=WHAT, help="what to measure (default: all)"
    )
    parser.add_argument(
        *("-c", "--config"),
        metavar="RECIPE",
        default="default",
        help="recipe that training and the loader follow (default: %(default)s)",
    )
    parser.add_argument(
        *("-d", "--data", "--dataset-dir", "--data_dir"),
        metavar="PATH",
        help="data set whose training images the loader reads (default: drawn ones)",
    )
    flags.add_device(parser)
    flags.add_precision(parser, int8=True)
    parser.add_argument(
        "--threads",
        type=flags.positive,
        metavar="N",
        help="threads of the CPU kernels (default: OMP_NUM_THREADS, else all cores)",
    )
    flags.add_workers(parser, "load images")
    parser.add_argument(
        "--rounds", type=flags.positive, default=7, metavar="N", help="per row (default: 7)"
    )
    parser.add_argument(
        "--seconds",
        type=flags.positive_float,
        default=1.0,
        metavar="S",
        help="length of a round, about; at least one batch (default: 1)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write the rows, with the seconds of every round, to a JSON file",
    )
    return parser


def cases(args: argparse.Namespace) -> Iterator[Case]:
    """The rows, in the order of the table; the loader does not depend on the network.

    Raises:
        UsageError: for a network that does not exist.
    """
    archs = [arch_of(name) for name in args.arch]
    for arch in archs:
        for what in WHAT[:2]:
            if what in args.only:
                for batch in args.batch_size:
                    yield Case(what, arch, batch, args.size or image_size(arch))
    if "loader" in args.only:
        for size in dict.fromkeys(args.size or image_size(arch) for arch in archs):
            for batch in args.batch_size:
                yield Case("loader", "", batch, size)


def measure(case: Case, args: argparse.Namespace, device: str, data: str) -> Dict[str, Any]:
    """Run a case; its row, for JSON.

    Raises:
        UserError: when it cannot be run, or does not survive.
    """
    words = ["--what", case.what, "--recipe", args.config, "--data", data]
    words += ["--batch", str(case.batch), "--size", str(case.size), "--device", device]
    words += ["--precision", args.precision or "fp32", "--workers", str(args.workers)]
    words += ["--warmup", str(WARMUP), "--seconds", str(args.seconds)]
    words += ["--arch", case.arch] if case.arch else []
    command = [sys.executable, str(ROOT / "benchmarks" / "worker_own.py"), *words]
    environment = {"OMP_NUM_THREADS": str(args.threads)} if args.threads else {}
    found = run_in_turns([Configuration(case.name, command)], args.rounds, environment)
    run = found["runs"][case.name]
    facts = run["facts"]
    speed = summary.speed(run["seconds"], case.batch * facts["batches"])
    return {
        **case._asdict(),
        "images_per_second": speed.median,
        "deviation": speed.deviation,
        "ms_per_batch": 1000 * case.batch / speed.median,
        "memory_mb": facts.get("gpu_peak_mb", facts["peak_mb"]),
        "batches_per_round": facts["batches"],
        "seconds": run["seconds"],
        "kernels": facts["kernels"],
        "versions": facts["versions"],
        "others_share": found["others_share"],
    }


def draw_images(folder: Path, count: int, size: int = DRAWN_SIZE) -> None:
    """Write JPEG files ``train/<class>/<k>.jpg``: a picture for each class, under several names."""
    for place, name in enumerate(CLASSES):
        picture = render(name, np.random.default_rng(place), size)
        data = cv2.imencode(".jpg", picture)[1].tobytes()
        (folder / "train" / name).mkdir(parents=True)
        for k in range(place, count, len(CLASSES)):
            (folder / "train" / name / f"{k:05d}.jpg").write_bytes(data)


def head(width: int) -> str:
    """The first line of the table, whose second column is ``width`` wide."""
    return line(("what", "network", "batch", "px", *COLUMNS), width)


def body(row: Dict[str, Any], width: int) -> str:
    """A line of the table."""
    numbers = ("images_per_second", "deviation", "ms_per_batch")
    return line(
        (
            *(row[name] for name in ("what", "arch", "batch", "size")),
            *(f"{row[name]:.{1 if row[name] >= 10 else 2}f}" for name in numbers),
            f"{row['memory_mb']:.0f}",
        ),
        width,
    )


def line(cells: Sequence[object], width: int) -> str:
    what, network, batch, size, *numbers = map(str, cells)
    left = f"{what:<9}  {network:<{width}}  {batch:>5}  {size:>4}"
    return left + "".join(f"  {cell:>{len(head)}}" for cell, head in zip(numbers, COLUMNS))


def notes(rows: Sequence[Dict[str, Any]], here: Dict[str, Any], data: str) -> List[str]:
    """What the rows were measured on and with."""
    versions = {name: version for row in rows for name, version in row["versions"].items()}
    versions.update({"Python": here["python"], "this": __version__})
    lines = [
        f"machine: {here['cpu']}, {here['cores']} core(s), {here['memory_gb']:.1f} GB, "
        f"{here['system']}",
        "kernels: " + "; ".join(dict.fromkeys(row["kernels"] for row in rows)),
        "versions: " + ", ".join(f"{name} {versions[name]}" for name in sorted(versions)),
    ]
    if any(row["what"] == "loader" for row in rows):
        lines.append(f"loader: {data}")
    others = max(row["others_share"] for row in rows)
    if others > BUSY:
        lines.append(
            f"other programs used {100 * others:.0f} % of a core meanwhile: without them the "
            "numbers are higher"
        )
    return lines


def start(args: argparse.Namespace) -> int:
    """Measure as the flags say."""
    if args.json:
        check_target("--json", Path(args.json))
    load_recipe(args.config)
    if args.precision == "int8" and "training" in args.only:
        raise UsageError("--precision int8 is for inference: --only inference")
    planned = list(cases(args))
    device = choose_device(args.device, 1)
    here = machine.describe()
    rows: List[Dict[str, Any]] = []
    failed = False
    with ExitStack() as stack:
        data, told = str(args.data), str(args.data)
        if args.data and "loader" in args.only:
            load_split(args.data, "train")
        elif "loader" in args.only:
            data = stack.enter_context(tempfile.TemporaryDirectory())
            count = max(DRAWN, *args.batch_size)
            draw_images(Path(data), count)
            told = f"{count} drawn JPEG files of {DRAWN_SIZE}x{DRAWN_SIZE} pixels"
        width = max(len("network"), *(len(case.arch) for case in planned))
        say(head(width))
        for case in planned:
            try:
                rows.append(measure(case, args, device, data))
            except UserError as error:
                failed = True
                sys.stderr.write(f"benchmark.py: error: {error}\n")
                continue
            say(body(rows[-1], width))
    if rows:
        say("\n".join(["", *notes(rows, here, told)]))
    if args.json:
        text = json.dumps(report(args, device, here, rows), indent=1)
        write_atomically(Path(args.json), (text + "\n").encode())
    return 1 if failed else 0


def report(
    args: argparse.Namespace, device: str, here: Dict[str, Any], rows: List[Dict[str, Any]]
) -> Dict[str, Any]:
    """Everything, for JSON."""
    return {
        "version": __version__,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": here,
        "device": device,
        "precision": args.precision or "fp32",
        "threads": args.threads or cpu_threads(),
        "recipe": args.config,
        "workers": args.workers,
        "data": args.data,
        "rows": rows,
    }


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
