"""The folder of a training run: its checkpoints, its recipe, and nothing of another run."""

import contextlib
import fcntl
import logging
import os
import re
from pathlib import Path
from typing import Iterator, List, Optional, Set

from ..engine.files import write_atomically
from ..engine.recipe import Recipe, dump_recipe
from ..errors import UserError

logger = logging.getLogger(__name__)

# What a run leaves, of this project or of others: MegEngine/Models has checkpoint.pkl, log.txt.
_TRACES = (
    *("*.safetensors", "metrics.jsonl", "log*.txt", "recipe.yaml", "curves.png", "tensorboard"),
    *("checkpoint*.pkl", "model_best*.pkl", "checkpoint*.pth"),
)
# What is there of a run that was ended before its first checkpoint: it goes on from its beginning.
_STARTED = {"metrics.jsonl", "log.txt", "recipe.yaml", "tensorboard"}
_LOCK = ".lock"
_OLDER = re.compile(r"checkpoint-(\d+)\.safetensors")


class RunFolder:
    """``<save>/<arch>``: checkpoints, best, recipe.yaml, metrics.jsonl, log.txt, curves.png.

    ``checkpoint.safetensors`` is the latest, ``checkpoint-<step>.safetensors`` are those before.

    Args:
        save, arch: as given by the flags.
        resume: "auto" for the checkpoints in this folder if there are any, a path, or None.
        keep: how many checkpoints stay.
    """

    def __init__(self, save: str, arch: str, resume: Optional[str], keep: int = 2):
        self.path = Path(save) / arch
        self.keep = keep
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.best = self.path / "best.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.resumes_auto = resume == "auto"
        if self.resumes_auto:
            self.resume_from = self.checkpoints()
        else:
            self.resume_from = [] if resume is None else [Path(resume)]

    def checkpoints(self) -> List[Path]:
        """Those that are there, the latest first."""
        found = [self.checkpoint] if self.checkpoint.exists() else []
        return found + self._older()

    def _older(self) -> List[Path]:
        steps = {path: _OLDER.fullmatch(path.name) for path in self.path.glob("checkpoint-*")}
        older = {path: int(match[1]) for path, match in steps.items() if match}
        return sorted(older, key=lambda path: -older[path])

    def make_room(self, step: int) -> None:
        """Put the latest checkpoint, which is of step ``step``, among those before.

        A run that is killed right afterwards is resumed from it.
        """
        if self.checkpoint.exists():
            self.checkpoint.replace(self.path / f"checkpoint-{step}.safetensors")

    def prune(self) -> None:
        """Delete the oldest checkpoints; with the latest, ``keep`` stay."""
        for path in self._older()[max(self.keep - 1, 0) :]:
            path.unlink()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other run out of the folder; the lock ends with this process, however it does.

        Raises:
            UserError: when another run is at work here, or the folder cannot be made.
        """
        self._make()
        path = self.path / _LOCK
        descriptor = self._lock(path)
        try:
            yield
        finally:
            path.unlink(
                missing_ok=True
            )  # while it is still locked: whoever opened it sees that it is gone
            os.close(descriptor)

    def _lock(self, path: Path) -> int:
        while True:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except OSError as error:
                raise UserError(
                    f"{path}: cannot be made: {error.strerror}; choose another folder with --save"
                ) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), path.stat()):
                        return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise UserError(
                    f"{self.path}: another run is at work here; wait for its end, or choose "
                    "another folder with --save"
                ) from None
            except OSError as error:
                logger.warning(
                    "%s: cannot be locked (%s); let no other run use this folder",
                    *(self.path, error.strerror),
                )
                return descriptor
            os.close(descriptor)  # of a run that has ended in between

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be made: {error.strerror}; choose another with --save"
            ) from None

    def _traces(self) -> List[Path]:
        return sorted({path for pattern in _TRACES for path in self.path.glob(pattern)})

    def _begins_again(self, traces: List[Path]) -> bool:
        """Whether ``--resume auto`` finds a run that was ended before its first checkpoint."""
        return self.resumes_auto and _names(traces) <= _STARTED

    def prepare(self) -> None:
        """Make the folder, and clear away what runs that were killed have left in it.

        Raises:
            UserError: when it cannot be made, or holds a run that this one would overwrite.
        """
        self._make()
        there = self.checkpoints()
        if there and not self._resumes_here(there):
            raise UserError(
                f"{there[0]}: holds a run already; continue it with --resume auto, or "
                "choose another folder with --save"
            )
        traces = self._traces()
        if traces and not there and not self._begins_again(traces):
            what, way = "belongs to a run that has no checkpoint here any more", ""
            if _names(traces) <= _STARTED:
                what = "belongs to a run that ended before its first checkpoint"
                way = "begin it again with --resume auto, "
            raise UserError(
                f"{traces[0]}: {what}; {way}choose another folder with --save, or move it away"
            )
        for part in self.path.glob("*.part"):  # killed in the middle of a write
            part.unlink()

    def write_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml; it is read back by ``load_recipe``.

        Raises:
            UserError: when it cannot be written.
        """
        write_atomically(self.path / "recipe.yaml", dump_recipe(recipe).encode())

    def is_latest(self, path: Path) -> bool:
        """Whether ``path`` is the latest checkpoint here, however it is spelled."""
        return self.checkpoint.exists() and self.checkpoint.samefile(path)

    def _resumes_here(self, there: List[Path]) -> bool:
        sources = [path for path in self.resume_from if path.exists()]
        return any(source.samefile(path) for source in sources for path in there)


def _names(paths: List[Path]) -> Set[str]:
    return {path.name for path in paths}


def way_out(kept: List[Path]) -> str:
    """What is left when numbers are not finite: the checkpoints ``kept``, latest first."""
    last = f"the last good checkpoint is {kept[0]}" if kept else "there is no checkpoint yet"
    return f"{last}; lower the learning rate, or look at the data"
