"""Taking turns: one step of each worker, round after round."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Dict, List, Sequence

from benchmarks.protocol import Worker, machine_cpu_seconds

PAUSE = 0.1  # seconds, many times what OpenMP's threads spin for after their last step


@dataclass(frozen=True)
class Configuration:
    """Something to measure: how its worker is started, under the name it has in the tables."""

    name: str
    command: Sequence[str]


def run_in_turns(
    configurations: Sequence[Configuration], rounds: int, environment: Dict[str, str]
) -> Dict[str, Any]:
    """Start all workers, then measure A B C A B C and so on.

    Returns:
        for JSON: ``runs``, by name the ``seconds`` of every step and the worker's ``facts``;
        ``idle_share`` and ``others_share``, the CPU time of the waiting workers and of foreign
        processes while one worker ran its step, as a share of that time on one core.

    Raises:
        UserError: when a worker does not do its part.
    """
    with ExitStack() as stack:
        workers = []
        for each in configurations:  # one by one: warming up takes all cores
            worker = stack.enter_context(Worker(each.name, each.command, environment))
            worker.wait_until_ready()
            workers.append(worker)
        seconds: Dict[str, List[float]] = {worker.name: [] for worker in workers}
        idle = others = wall = 0.0
        for _ in range(rounds):
            for worker in workers:
                time.sleep(PAUSE)
                before = _clocks(worker, workers)
                seconds[worker.name].append(worker.step())
                after = _clocks(worker, workers)
                active, waiting, machine = (b - a for a, b in zip(before, after))
                wall += seconds[worker.name][-1]
                idle += waiting
                others += machine - active - waiting
        runs = {each.name: {"seconds": seconds[each.name], "facts": each.end()} for each in workers}
    return {"runs": runs, "idle_share": idle / wall, "others_share": max(0.0, others / wall)}


def _clocks(active: Worker, workers: Sequence[Worker]) -> List[float]:
    """CPU seconds of the active worker, of the waiting ones, and of the whole machine."""
    waiting = sum(worker.cpu_seconds() for worker in workers if worker is not active)
    return [active.cpu_seconds(), waiting, machine_cpu_seconds()]
