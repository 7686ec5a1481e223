"""A run's metrics for trackers of experiments, by their own packages where these are installed."""

import importlib
import logging
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence

from ..errors import UsageError

PROJECT = "megengine-resnet"  # what the runs are filed under

logger = logging.getLogger(__name__)


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
            scalar(tag=name, simple_value=value) for name, value in numbers_of(values).items()
        ]
        summary = self._proto.summary_pb2.Summary(value=scalars)
        self._write(step=values["step"], summary=summary)

    def close(self) -> None:
        """Nothing: every row is in the file."""

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


class WandB:
    """Weights & Biases; ``WANDB_MODE=offline`` keeps it on this machine."""

    def __init__(self, package: Any, folder: Path, config: Dict[str, Any]):
        self._run = package.init(
            project=PROJECT, name=name_of(folder), dir=str(folder), config=config, reinit=True
        )

    def log(self, numbers: Dict[str, float], step: int) -> None:
        self._run.log(numbers, step=step)

    def close(self) -> None:
        self._run.finish()


class MLflow:
    """MLflow, wherever ``MLFLOW_TRACKING_URI`` says; else in ``mlruns`` of the working folder."""

    def __init__(self, package: Any, folder: Path, config: Dict[str, Any]):
        self._package = package
        package.set_experiment(PROJECT)
        package.start_run(run_name=name_of(folder))
        package.log_params(_dotted(config))

    def log(self, numbers: Dict[str, float], step: int) -> None:
        self._package.log_metrics(numbers, step=step)

    def close(self) -> None:
        self._package.end_run()


class SwanLab:
    """SwanLab; ``SWANLAB_MODE=local`` keeps it on this machine."""

    def __init__(self, package: Any, folder: Path, config: Dict[str, Any]):
        self._package = package
        package.init(
            project=PROJECT,
            experiment_name=name_of(folder),
            logdir=str(folder / "swanlab"),
            config=config,
        )

    def log(self, numbers: Dict[str, float], step: int) -> None:
        self._package.log(numbers, step=step)

    def close(self) -> None:
        self._package.finish()


_OTHERS: Dict[str, Callable[[Any, Path, Dict[str, Any]], Any]] = {
    "wandb": WandB,
    "mlflow": MLflow,
    "swanlab": SwanLab,
}
TRACKERS = ("tensorboard", *_OTHERS)


class Tracker:
    """One of the others than TensorBoard, opened at the first numbers and left when it fails.

    Raises:
        UsageError: when its package is not installed.
    """

    def __init__(self, name: str, folder: Path, config: Dict[str, Any]):
        try:
            self._package = importlib.import_module(name)
        except ImportError:
            raise UsageError(
                f"--log {name}: needs the package {name}; pip install {name}"
            ) from None
        self._name, self._folder, self._config = name, folder, config
        self._opened: Optional[Any] = None  # none for a refused run
        self._failed = False

    def rewind(self, step: int) -> None:
        """Nothing: a run that goes on is another one there, which begins after ``step``."""

    def add(self, values: Dict[str, Any]) -> None:
        """One row of metrics.jsonl; ``event`` groups its numbers."""
        self._try(lambda: self._log(values))

    def close(self) -> None:
        """End the run there."""
        if self._opened is not None:
            self._try(self._opened.close)
            self._opened = None

    def _log(self, values: Dict[str, Any]) -> None:
        if self._opened is None:
            self._opened = _OTHERS[self._name](self._package, self._folder, self._config)
        self._opened.log(numbers_of(values), values["step"])

    def _try(self, act: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # whatever it is of theirs, the run is worth more
            self._failed = True
            logger.warning(
                "--log %s: %s: %s; the run goes on without it, and metrics.jsonl has all numbers",
                *(self._name, type(error).__name__, " ".join(str(error).split())[:200]),
            )


def open_trackers(names: Sequence[str], folder: Path, config: Dict[str, Any]) -> List[Any]:
    """Those of ``TRACKERS`` that are named, each once.

    Args:
        folder: of the run.
        config: its recipe, which they show.

    Raises:
        UsageError: when the package of one is not installed.
    """
    return [
        EventWriter(folder / "tensorboard")
        if name == "tensorboard"
        else Tracker(name, folder, config)
        for name in dict.fromkeys(names)
    ]


def numbers_of(values: Dict[str, Any]) -> Dict[str, float]:
    """Of a row of metrics.jsonl, by ``<event>/<name>``; whether it is the best is none."""
    return {
        f"{values['event']}/{name}": value
        for name, value in values.items()
        if name not in ("event", "step")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }


def name_of(folder: Path) -> str:
    """Of a run, by its folder, without the rest of the path."""
    return "/".join(folder.resolve().parts[-2:])


def _dotted(values: Dict[str, Any], before: str = "") -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for key, value in values.items():
        found.update(
            _dotted(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
        )
    return found
