"""What the workers of the benchmarks have in common, whichever framework they measure.

A worker measures one configuration. Its output is read by ``protocol.Worker``, line by line: when
it has warmed up it writes ``ready``; for every line ``step`` that it reads it runs one step and
writes the seconds that took; for ``end`` it writes a JSON object of facts and exits. Whatever
libraries print goes to the standard error.
"""

import argparse
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

Step = Callable[[], float]  # does the work; its result, a number, is on the host

RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4  # of SGD
CLASSES = 1000


def loader_parser(description: Optional[str]) -> argparse.ArgumentParser:
    """What the workers that load photographs have in common."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--photos", required=True, metavar="DIR", help="a folder per class")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--warmup", type=int, default=1, help="passes before ready")
    return parser


def network_parser(description: Optional[str]) -> argparse.ArgumentParser:
    """The flags of a worker that runs a network."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--mode", required=True, choices=["inference", "train"])
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--warmup", type=int, default=3, help="steps before ready")
    parser.add_argument("--steps", type=int, default=1, help="that are timed as one")
    return parser


def status_mb(field: str) -> float:
    """A size that Linux knows of this process, such as ``VmHWM``, in MB (10^6 bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise ValueError(f"/proc/self/status has no {field}")


def only_core(number: int) -> None:
    """Keep this process, with all threads it will have, on one of its cores."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[number]})


class Server:
    """The worker's side of the protocol. Make it before anything that may print."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._imported = status_mb("VmRSS")

    def serve(self, step: Step, warmup: int, facts: Dict[str, Any], steps: int = 1) -> int:
        """Warm up and measure until told to end; return the exit code.

        Args:
            steps: that are done at each request, of which the mean time is told; of several the
                facts have the 99th percentile over all requests in the end, as ``p99``.

        Raises:
            ValueError: for a step whose result is not finite.
        """
        for _ in range(warmup):
            _timed(step)
        self._answer("ready")
        taken: List[float] = []
        for line in sys.stdin:
            if line.strip() == "end":
                if steps > 1 and len(taken) > 1:
                    facts = {**facts, "p99": statistics.quantiles(taken, n=100)[98]}
                memory = {"imported_mb": self._imported, "peak_mb": status_mb("VmHWM")}
                self._answer(json.dumps({**facts, **memory}))
                return 0
            taken += (_timed(step) for _ in range(steps))
            self._answer(repr(sum(taken[-steps:]) / steps))
        return 1  # whoever asked is gone

    def _answer(self, line: str) -> None:
        self._answers.write(line + "\n")
        self._answers.flush()


def _timed(step: Step) -> float:
    started = time.perf_counter()
    result = step()
    seconds = time.perf_counter() - started
    if not math.isfinite(result):
        raise ValueError(f"the result of a step is {result}, so its time means nothing")
    return seconds
