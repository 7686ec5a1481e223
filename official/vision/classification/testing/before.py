"""What a network in int8 got right before, in float32."""

from functools import partial
from typing import Any

import megengine.module as M
import numpy as np

from ..data.loader import Batch
from ..data.normalize import Normalize
from ..engine.evaluation import Counter, Result
from ..engine.scoring import Scorer
from ..ops.accelerate import compiled_ops
from ..ops.cores import cpu_threads
from ..zoo.trained import Network


class BeforeInt8:
    """Counts by the float32 network, beside ``evaluate``."""

    def __init__(self, network: Network):
        ops = compiled_ops(cpu_threads())
        compute = partial(ops.whole, network.model, _logits)
        self._score = Scorer(compute, Normalize(network.preprocess, ops))
        self.counter = Counter()

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Count a batch, whose ``(N, C)`` logits in int8 are known."""
        self.counter.add(self._score(batch.images).logits, batch.labels)


def _logits(model: M.Module, x: Any) -> Any:
    return model(x)


def line_of_both(before: Result, after: Result) -> str:
    """The counts of both, in a line."""
    lost = before.top1_correct - after.top1_correct
    return (
        f"Acc@1 in float32 {before.top1:.3f}, {before.top1_correct:,} of {before.total:,}; in int8 "
        f"{after.top1_correct:,}, {abs(lost):,} {'fewer' if lost >= 0 else 'more'}"
    )
