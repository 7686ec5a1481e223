"""What a run shows of its steps: the bar, a line now and then, and rows of metrics."""

import time

from megengine import Tensor

from ..distributed.collectives import world_size
from ..engine.console import Console
from ..engine.meters import StepMeters
from ..text import duration


class Display:
    """Shows the steps of a run on its console.

    Args:
        steps_per_epoch, epochs: the length of the run.
        batch: images per step over all devices.
    """

    def __init__(self, console: Console, steps_per_epoch: int, epochs: int, batch: int):
        self.console = console
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs
        self.batch = batch
        self.meters = StepMeters()
        self.begin(0)

    def begin(self, step: int) -> None:
        """Measure the time from here on, where ``step`` steps are done."""
        self.began, self.first_step = time.perf_counter(), step
        self.last_time = self.began  # when the last step ended

    @property
    def seconds(self) -> float:
        """Since ``begin``."""
        return time.perf_counter() - self.began

    def start_bar(self, step: int) -> None:
        """Begin the bar of the epoch that the step after ``step`` belongs to."""
        self.last_time = time.perf_counter()
        epoch, done = divmod(step, self.steps_per_epoch)
        self.console.start_bar(
            f"Epoch {epoch + 1}/{self.epochs}", self.steps_per_epoch * self.batch, done * self.batch
        )

    def note(self, results: Tensor, images: int) -> None:
        """Take in a step's results, which stay on the device, and its images on this rank."""
        now = time.perf_counter()
        self.meters.add(results, now - self.last_time)
        self.last_time = now
        self.console.advance(images * world_size())

    def report(self, step: int, rate: float) -> None:
        """The seed's line, and a row of metrics; the meters start anew.

        Args:
            rate: the learning rate of the last of ``step`` steps.

        Raises:
            NonFiniteLoss: when a loss is not finite.
        """
        if not self.meters.fetch(step):
            return
        epoch = (step - 1) // self.steps_per_epoch + 1
        self.console.tick(f"Epoch {epoch} Step {step - 1}, LR {_shown(rate)}, {self.meters}")
        means = self.meters.means()
        numbers = {"loss": f"{means['loss']:.3f}", "top1": f"{means['top1']:.1f}"}
        self.console.advance(0, **{"run left": self.time_left(step), **numbers})
        share = step / self.steps_per_epoch
        self.console.metrics(event="train", step=step, epoch=share, lr=rate, **means)
        self.meters.reset()

    def time_left(self, step: int) -> str:
        """Of the whole run, tests included, at the pace since ``begin``."""
        done = max(step - self.first_step, 1)
        return duration(self.seconds / done * (self.epochs * self.steps_per_epoch - step))


def _shown(rate: float) -> str:
    """As the seed shows it; small ones, as fine-tuning has them, with their digits."""
    return f"{rate:.4f}" if rate == 0 or rate >= 0.001 else f"{rate:.2e}"
