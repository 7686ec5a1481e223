#!/usr/bin/env python3
"""Compare the CPU speed of this repository with stock MegEngine's and PyTorch's, in turns.

everything                 make benchmark PHOTOS=data/imagenet
a test that it works       python benchmarks/compare.py --quick --without torch

Writes benchmarks/results.json and docs/benchmarks.md, with --quick below output/benchmark. It wants
a machine that does nothing else, and uses all cores that it may; "taskset -c 0-3 make benchmark"
gives it four.
"""

import argparse
import json
import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import machine  # noqa: E402
from benchmarks.interleave import PAUSE, Configuration, run_in_turns  # noqa: E402
from benchmarks.peak import Peak  # noqa: E402
from benchmarks.report import render  # noqa: E402
from official.vision.classification.data.folder import load_folder  # noqa: E402
from official.vision.classification.errors import UsageError, UserError  # noqa: E402

HERE = ROOT / "benchmarks"
WARMUP = 3  # steps
PEAK_SECONDS = 0.5
STOCK_STEPS = {"inference": 3, "train": 1}  # it takes up to minutes for one


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--torch-python",
        default=str(ROOT / ".venv-torch" / "bin" / "python"),
        metavar="PATH",
        help="Python with benchmarks/requirements-torch.txt (default: .venv-torch)",
    )
    parser.add_argument(
        "--photos", metavar="DIR", help="photographs for the loader: val/<class>/<image> in DIR"
    )
    parser.add_argument("--arch", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument(
        "--without", nargs="+", default=[], choices=["torch", "stock"], help="peers to leave out"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 images of 64 pixels")
    parser.add_argument("--results", metavar="FILE", help="where the measured seconds go, as JSON")
    parser.add_argument("--document", metavar="FILE", help="where the tables go, as Markdown")
    return parser


def main(words: Optional[Sequence[str]] = None) -> int:
    """Measure and write; return the exit code."""
    args = parser().parse_args(words)
    folders = (HERE, ROOT / "docs")
    if args.quick:
        args.rounds, args.batch, args.size = 2, 2, 64
        folders = (ROOT / "output" / "benchmark",) * 2
    try:
        check(args)
        results = measure(args)
        write(Path(args.results or folders[0] / "results.json"), json.dumps(results, indent=1))
        write(Path(args.document or folders[1] / "benchmarks.md"), render(results))
    except UserError as error:
        sys.stderr.write(f"benchmark: {error}\n")
        return error.exit_code
    return 0


def check(args: argparse.Namespace) -> None:
    """Tell now what would end the run after a quarter of an hour.

    Raises:
        UserError: for an environment or photographs that are not there.
    """
    if "torch" not in args.without and not Path(args.torch_python).exists():
        raise UsageError(
            f"--torch-python {args.torch_python}: no such file; benchmarks/setup_peers.sh torch "
            "makes .venv-torch, and --without torch needs none"
        )
    if args.photos:
        load_folder(Path(args.photos) / "val")


def measure(args: argparse.Namespace) -> Dict[str, Any]:
    """Run everything; what the report is made of, for JSON."""
    cores = len(os.sched_getaffinity(0))
    results: Dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "threads": cores,
        **{name: getattr(args, name) for name in ("batch", "size", "rounds")},
        "pause": PAUSE,
        "warmup": 1 if args.quick else WARMUP,
        "peak": [],
        "networks": [],
        "loader": None,
    }
    environment = {"OMP_NUM_THREADS": str(cores), "RESNET_KERNELS": "native"}
    with Peak() as peak:
        for arch in args.arch:
            for mode in ("inference", "train"):
                results["peak"] += measure_peak(peak, cores, args.quick)
                group = measure_network(args, arch, mode, results["warmup"], environment)
                results["networks"].append(group)
        if args.photos:
            say("loader")
            results["loader"] = run_in_turns(
                loaders(args), args.rounds, {**environment, "OMP_NUM_THREADS": "1"}
            )
        else:
            say("loader: left out, there are no photographs; name them with --photos")
        results["peak"] += measure_peak(peak, cores, args.quick)
    return results


def measure_peak(peak: Peak, cores: int, quick: bool) -> List[Dict[str, Any]]:
    """On one core and on all."""
    seconds = PEAK_SECONDS / 10 if quick else PEAK_SECONDS
    return [peak.measure(threads, seconds) for threads in sorted({1, cores})]


def measure_network(
    args: argparse.Namespace, arch: str, mode: str, warmup: int, environment: Dict[str, str]
) -> Dict[str, Any]:
    """All configurations of one network; stock MegEngine after the others, for it is too slow.

    Raises:
        UserError: when they are not the same network.
    """
    words = ["--arch", arch, "--mode", mode, "--batch", str(args.batch), "--size", str(args.size)]
    say(f"{arch}, {mode}: ours" + ("" if "torch" in args.without else " and PyTorch in turns"))
    configurations = contenders(args, [*words, "--warmup", str(warmup)])
    group = {"arch": arch, "mode": mode, **run_in_turns(configurations, args.rounds, environment)}
    if "stock" not in args.without:
        for each in stock(words, mode):
            say(f"{arch}, {mode}: {each.name}")
            group["runs"].update(run_in_turns([each], STOCK_STEPS[mode], environment)["runs"])
    counts = {name: run["facts"]["parameters"] for name, run in group["runs"].items()}
    if len(set(counts.values())) != 1:
        raise UserError(f"{arch}: the networks compared differ in their parameters: {counts}")
    return group


def contenders(args: argparse.Namespace, words: List[str]) -> List[Configuration]:
    """What takes turns."""
    ours = [sys.executable, str(HERE / "worker_megengine.py"), *words]
    torch = [args.torch_python, str(HERE / "worker_torch.py"), *words]
    last = ["--layout", "channels_last"]
    half = ["--precision", "bf16"]
    found = [Configuration("ours", ours)]
    if "torch" not in args.without:
        found.append(Configuration("PyTorch, NCHW", torch))
        found.append(Configuration("PyTorch, channels_last", [*torch, *last]))
    if "avx512_bf16" in machine.describe()["flags"]:
        found.append(Configuration("ours, bf16", [*ours, *half]))
        if "torch" not in args.without:
            found.append(Configuration("PyTorch, bf16", [*torch, *last, *half]))
    return found


def stock(words: List[str], mode: str) -> List[Configuration]:
    """MegEngine as it comes: on its default device, and on the one that uses all cores."""
    command = [sys.executable, str(HERE / "worker_megengine.py"), *words]
    command += ["--warmup", "1" if mode == "inference" else "0", "--stock"]
    cores = len(os.sched_getaffinity(0))
    return [
        Configuration("stock MegEngine", [*command, "cpux"]),
        Configuration("stock MegEngine, multithread", [*command, f"multithread{cores}:0"]),
    ]


def loaders(args: argparse.Namespace) -> List[Configuration]:
    """One core each."""
    photos = Path(args.photos).resolve() / "val"
    common = ["--photos", str(photos), "--batch", str(args.batch)]
    ours = [sys.executable, str(HERE / "worker_loader.py"), *common, "--kind"]
    found = [
        Configuration("ours, uint8", [*ours, "uint8"]),
        Configuration("ours", [*ours, "normalised"]),
        Configuration("decoding alone", [*ours, "decode"]),
    ]
    if "stock" not in args.without:
        found.append(Configuration("megengine.data", [*ours, "stock"]))
    if "torch" not in args.without:
        pil = [args.torch_python, str(HERE / "worker_pil.py"), *common]
        found.append(Configuration("Pillow", pil))
    return found


def write(path: Path, text: str) -> None:
    """Make the folder, too."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    say(f"wrote {path}")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
