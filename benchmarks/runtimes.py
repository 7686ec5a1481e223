#!/usr/bin/env python3
"""Compare inference on a CPU with OpenVINO, ONNX Runtime and torch.compile, in turns.

everything      make benchmark
a part of it    python benchmarks/runtimes.py --arch resnet18 --batch 1 --precision fp32 --print

Adds a section to benchmarks/results.json and docs/benchmarks.md, unless --print is given. It wants
a machine that does nothing else; with --busy another program wants a core all the time.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import machine  # noqa: E402
from benchmarks.interleave import PAUSE, Configuration, run_in_turns  # noqa: E402
from benchmarks.report import render, runtimes_table  # noqa: E402
from official.vision.classification.errors import UsageError, UserError  # noqa: E402

HERE = ROOT / "benchmarks"
SPIN = "while True: pass"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, folder in (("torch", ".venv-torch"), ("runtimes", ".venv-runtimes")):
        parser.add_argument(
            f"--{name}-python",
            default=str(ROOT / folder / "bin" / "python"),
            metavar="PATH",
            help=f"Python with benchmarks/requirements-{name}.txt (default: {folder})",
        )
    parser.add_argument("--arch", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--batch", nargs="+", type=int, default=[16, 1])
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16", "int8"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20, help="of a round, for batches of 1")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--without", nargs="+", default=[], choices=["torch", "onnxruntime"])
    parser.add_argument("--busy", action="store_true", help="beside a program that never rests")
    parser.add_argument("--print", action="store_true", help="write the table and no files")
    return parser


def main(words: Optional[Sequence[str]] = None) -> int:
    """Measure and write; return the exit code."""
    args = parser().parse_args(words)
    try:
        check(args)
        found = measure(args)
        if args.print:
            sys.stdout.write(runtimes_table(found) + "\n")
        else:
            write(found)
    except UserError as error:
        sys.stderr.write(f"runtimes: {error}\n")
        return error.exit_code
    return 0


def check(args: argparse.Namespace) -> None:
    """Tell now what would end the run after some minutes.

    Raises:
        UsageError: for an environment that is not there.
    """
    wanted = {"runtimes": args.runtimes_python}
    if "torch" not in args.without:
        wanted["torch"] = args.torch_python
    for name, path in wanted.items():
        if not Path(path).exists():
            raise UsageError(
                f"--{name}-python {path}: no such file; benchmarks/setup_peers.sh {name} makes it"
            )


def measure(args: argparse.Namespace) -> Dict[str, Any]:
    """Run everything; what the section is made of, for JSON."""
    cores = len(os.sched_getaffinity(0))
    environment = {"OMP_NUM_THREADS": str(cores), "RESNET_KERNELS": "native"}
    groups = []
    with tempfile.TemporaryDirectory() as folder:
        for arch in args.arch:
            file = exported(arch, Path(folder))
            for precision in args.precision:
                for batch in args.batch:
                    found = configurations(args, arch, precision, batch, file)
                    with busy(args.busy):
                        group = run_in_turns(found, args.rounds, environment)
                    groups.append({"arch": arch, "precision": precision, "batch": batch, **group})
                    sys.stderr.write(f"{arch}, {precision}, batch {batch}: done\n")
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": machine.describe(),
        "threads": cores,
        "size": args.size,
        "rounds": args.rounds,
        "steps": args.steps,
        "pause": PAUSE,
        "busy": args.busy,
        "groups": groups,
    }


def exported(arch: str, folder: Path) -> Path:
    """The network as an ONNX file, with random weights.

    Raises:
        UserError: when it cannot be written.
    """
    file = folder / f"{arch}.onnx"
    command = [sys.executable, str(ROOT / "tools" / "export.py"), "--random-weights"]
    command += ["--arch", arch, "--out", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"tools/export.py: {(done.stderr.splitlines() or ['it failed'])[-1]}")
    return file


def configurations(
    args: argparse.Namespace, arch: str, precision: str, batch: int, file: Path
) -> List[Configuration]:
    """What takes turns: those that have the precision."""
    words = ["--arch", arch, "--mode", "inference", "--precision", precision]
    words += ["--batch", str(batch), "--size", str(args.size), "--warmup", "5"]
    words += ["--steps", str(args.steps if batch == 1 else 1)]
    ours = [sys.executable, str(HERE / "worker_megengine.py"), *words]
    runtime = [args.runtimes_python, str(HERE / "worker_runtime.py"), *words, "--file", str(file)]
    found = [
        Configuration("ours", ours),
        Configuration("OpenVINO", [*runtime, "--runtime", "openvino"]),
    ]
    if precision != "bf16" and "onnxruntime" not in args.without:
        found.append(Configuration("ONNX Runtime", [*runtime, "--runtime", "onnxruntime"]))
    if precision != "int8" and "torch" not in args.without:
        torch = [args.torch_python, str(HERE / "worker_torch.py"), *words]
        torch += ["--layout", "channels_last", "--compile"]
        found.append(Configuration("torch.compile", torch))
    return found


@contextlib.contextmanager
def busy(wanted: bool) -> Iterator[None]:
    """Another program that wants a core all the time, if it is wanted."""
    if not wanted:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", SPIN]) as spinning:
        try:
            yield
        finally:
            spinning.kill()


def write(found: Dict[str, Any]) -> None:
    """Put the section, that of busy machines beside the other, into the results and the page."""
    results = json.loads((HERE / "results.json").read_text())
    results["runtimes_busy" if found["busy"] else "runtimes"] = found
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    page = render(results).rstrip("\n") + "\n"
    (ROOT / "docs" / "benchmarks.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
