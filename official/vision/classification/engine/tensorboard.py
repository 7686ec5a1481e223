"""A run's metrics for TensorBoard, for those who have it."""

from pathlib import Path
from typing import Any, Dict

from ..errors import UsageError


class EventWriter:
    """Writes the numbers of metrics.jsonl as TensorBoard's scalars, by step.

    Raises:
        UsageError: when tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboardX import SummaryWriter  # optional
        except ImportError:
            raise UsageError(
                "--tensorboard: needs the package tensorboardX; pip install tensorboardX"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def add(self, values: Dict[str, Any]) -> None:
        """One row of metrics.jsonl; ``event`` groups its numbers."""
        for name, value in values.items():
            if name not in ("event", "step") and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{values['event']}/{name}", value, values["step"])
        self._writer.flush()
