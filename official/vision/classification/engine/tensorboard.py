"""A run's metrics for TensorBoard, for those who have it."""

import time
from pathlib import Path
from typing import Any, Dict, Optional

from ..errors import UsageError


class EventWriter:
    """Writes the numbers of metrics.jsonl as TensorBoard's scalars, by step.

    Every row is in the file when ``add`` returns. tensorboardX's SummaryWriter would leave it to a
    thread, and a run that ends or is killed would lose its last rows.

    Raises:
        UsageError: when tensorboardX is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from tensorboardX import event_file_writer, proto  # optional
            from tensorboardX.proto import event_pb2, summary_pb2  # noqa: F401
        except ImportError:
            raise UsageError(
                "--tensorboard: needs the package tensorboardX; pip install tensorboardX"
            ) from None
        self._folder = folder
        self._package, self._proto = event_file_writer, proto
        self._file: Any = None  # none for a refused run
        self._last_step: Optional[int] = None

    def rewind(self, step: int) -> None:
        """Make TensorBoard drop what earlier files have after ``step``; before any ``add``."""
        self._last_step = step

    def add(self, values: Dict[str, Any]) -> None:
        """One row of metrics.jsonl; ``event`` groups its numbers."""
        if self._file is None:
            self._open()
        scalar = self._proto.summary_pb2.Summary.Value
        scalars = [
            scalar(tag=f"{values['event']}/{name}", simple_value=value)
            for name, value in values.items()
            if name not in ("event", "step") and isinstance(value, (int, float))
        ]
        summary = self._proto.summary_pb2.Summary(value=scalars)
        self._write(step=values["step"], summary=summary)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, which otherwise only tell the second.
        self._file = self._package.EventsWriter(
            str(self._folder / "events"), filename_suffix=f".{time.time_ns()}"
        )
        if self._last_step is not None:
            log = self._proto.event_pb2.SessionLog
            start = log(status=log.START)  # of a writer whose first step is this one
            self._write(step=self._last_step + 1, session_log=start)

    def _write(self, **content: Any) -> None:
        event = self._proto.event_pb2.Event(wall_time=time.time(), **content)
        self._file.write_event(event)
        self._file.flush()
