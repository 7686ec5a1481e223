#!/usr/bin/env python3
"""Measure how fast every network of the weights' table is on this machine's CPU.

    python benchmarks/network_speeds.py --out docs/pictures/speeds.json

For each network and each size in pixels at which a published row is tested: one image at a time,
from uint8 to logits, on all cores; two passes to warm up, then the fastest of several, which other
programs disturb the least. What these used meanwhile, as a share of a core, is in the file, too;
--quiet has the networks where it was more measured again. What FILE has is left out, so that
the measurement can be made in parts (--seconds); --again ignores it.
docs/pictures/accuracy.svg is drawn from the file.
"""

import argparse
import contextlib
import json
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from official import startup  # noqa: E402

if __name__ == "__main__":
    startup.prepare()
import megengine.module as M  # noqa: E402

from benchmarks import machine  # noqa: E402
from benchmarks.interleave import machine_cpu_seconds  # noqa: E402
from benchmarks.worker_own import random_batch  # noqa: E402
from official.vision.classification.data.normalize import Normalize  # noqa: E402
from official.vision.classification.engine.device import (  # noqa: E402
    cpu_threads,
    prepare,
    use_device,
)
from official.vision.classification.preprocess import Preprocess  # noqa: E402
from official.vision.classification.zoo import ROWS, get_model  # noqa: E402

PASSES, LEAST_SECONDS, MOST_PASSES = 6, 0.6, 50
DATASET = "ImageNet-1k"

Pair = Tuple[str, int]


def pairs() -> List[Pair]:
    """Network and pixels of every row with an accuracy, the quick ones first."""
    found = {
        (row.arch, row.preprocess.crop or 224): row.macs
        for row in ROWS
        if row.dataset == DATASET and row.top1 is not None
    }
    return sorted(found, key=lambda pair: found[pair])


@contextlib.contextmanager
def one_value() -> Iterator[None]:
    """Networks are built with filters that are all alike, which takes no time to draw."""
    with contextlib.ExitStack() as stack:
        for name in ("msra_normal_", "msra_uniform_", "normal_", "uniform_"):
            if hasattr(M.init, name):
                fill = lambda tensor, *_, **__: M.init.fill_(tensor, 1e-3)  # noqa: E731
                stack.enter_context(mock.patch.object(M.init, name, fill))
        yield


def measure(arch: str, size: int) -> Dict[str, Any]:
    """Seconds of passes of one image through a network."""
    with one_value():
        model = prepare(get_model(arch), "cpu", "fp32")
    model.eval()
    normalize = Normalize(Preprocess(), model.ops)
    image = random_batch(1, size).images
    seconds: List[float] = []
    began = _clocks()
    for number in range(2 + MOST_PASSES):
        started = time.perf_counter()
        model(normalize(image)).numpy()
        if number >= 2:
            seconds.append(time.perf_counter() - started)
        if len(seconds) >= PASSES and sum(seconds) > LEAST_SECONDS:
            break
    wall, own, busy = (after - before for before, after in zip(began, _clocks()))
    return {
        "network": arch,
        "px": size,
        "images_per_second": float(f"{1 / min(seconds):.4g}"),
        "passes": len(seconds),
        "others": round((busy - own) / wall, 2),
        "kernels": model.ops.name,
    }


def _clocks() -> Tuple[float, float, float]:
    """Seconds that have passed, CPU seconds of this process, and of the whole machine."""
    return time.perf_counter(), time.process_time(), machine_cpu_seconds()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no other after so many")
    parser.add_argument("--again", action="store_true", help="measure all anew")
    parser.add_argument("--quiet", type=float, metavar="SHARE", help="such as 0.1")
    args = parser.parse_args(argv)
    use_device("cpu")
    path, started = Path(args.out), time.monotonic()
    found: List[Dict[str, Any]] = []
    if path.exists() and not args.again:
        found = json.loads(path.read_text())["networks"]
    slow = {}
    if args.quiet is not None:
        slow = {(e["network"], e["px"]): e for e in found if e["others"] > args.quiet}
        found = [each for each in found if each["others"] <= args.quiet]
    known = {(each["network"], each["px"]) for each in found}
    for arch, size in pairs():
        if (arch, size) in known:
            continue
        if time.monotonic() - started > args.seconds:
            break
        found.append(_faster(measure(arch, size), slow.pop((arch, size), None)))
        sys.stdout.write("{network:<22} {px:>4} {images_per_second:>8}\n".format(**found[-1]))
        sys.stdout.flush()
        write(path, [*found, *slow.values()])
    return 0


def _faster(one: Dict[str, Any], other: Optional[Dict[str, Any]]) -> Dict[str, Any]:
    """The same network measured twice."""
    return max([one, other or one], key=lambda each: each["images_per_second"])


def write(path: Path, found: List[Dict[str, Any]]) -> None:
    """The file, with what was measured on and how."""
    about = {
        "command": "python benchmarks/network_speeds.py --out docs/pictures/speeds.json",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "machine": {key: value for key, value in machine.describe().items() if key != "load"},
        "threads": cpu_threads(),
        "batch": 1,
        "precision": "fp32",
    }
    order = {pair: place for place, pair in enumerate(pairs())}
    found = sorted(found, key=lambda each: order[each["network"], each["px"]])
    lines = ",\n".join(f"  {json.dumps(each)}" for each in found)
    head = json.dumps(about, indent=1)[:-2]
    path.write_text(f'{head},\n "networks": [\n{lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
