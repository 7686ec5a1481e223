"""What a run measures while it trains."""

from typing import Dict, List

import numpy as np
from megengine import Tensor

from ..errors import TrainingError


class NonFiniteLoss(TrainingError):
    """The loss of step ``step``, counted from 0, is not a number one can go on with."""

    def __init__(self, loss: float, step: int):
        super().__init__(f"the loss is {loss} at step {step}")
        self.step = step


class Meter:
    """The last value of a quantity and its mean since the last reset."""

    def __init__(self, name: str):
        self.name = name
        self.reset()

    def reset(self) -> None:
        self.last = self.sum = 0.0
        self.count = 0

    def update(self, value: float, count: int = 1) -> None:
        self.last = value
        self.sum += value * count
        self.count += count

    @property
    def mean(self) -> float:
        return self.sum / max(self.count, 1)

    def __str__(self) -> str:
        return f"{self.name} {self.last:.3f} ({self.mean:.3f})"


class StepMeters:
    """Loss, accuracy and time of the steps since the last report.

    Results stay on the device until someone looks at them, so that no step waits for the one
    before it.
    """

    def __init__(self):
        self.loss, self.top1, self.top5, self.time = (
            Meter(name) for name in ("Loss", "Acc@1", "Acc@5", "Time")
        )
        self._pending: List[Tensor] = []

    def add(self, results: Tensor, seconds: float) -> None:
        """Note a step: its loss and its top-1 and top-5 shares in one tensor, and its time."""
        self._pending.append(results)
        self.time.update(seconds)

    def fetch(self, step: int) -> bool:
        """Fetch what is pending after ``step`` steps; say whether there is anything to report.

        Raises:
            NonFiniteLoss: for the first step whose loss is not finite.
        """
        first = step - len(self._pending)
        for offset, results in enumerate(self._pending):
            loss, top1, top5 = results.numpy().reshape(-1).tolist()
            if not np.isfinite(loss):
                raise NonFiniteLoss(loss, first + offset)
            self.loss.update(loss)
            self.top1.update(100 * top1)
            self.top5.update(100 * top5)
        self._pending = []
        return self.loss.count > 0

    def means(self) -> Dict[str, float]:
        """The means by their names in metrics.jsonl."""
        return {
            "loss": self.loss.mean,
            "top1": self.top1.mean,
            "top5": self.top5.mean,
            "seconds_per_step": self.time.mean,
        }

    def reset(self) -> None:
        for meter in (self.loss, self.top1, self.top5, self.time):
            meter.reset()

    def __str__(self) -> str:
        return f"{self.loss} {self.top1} {self.top5} {self.time}"
