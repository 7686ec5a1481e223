"""What a run shows and writes down: lines, a progress bar, log.txt and metrics.jsonl."""

import contextlib
import errno
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

from tqdm import tqdm

from .files import write_atomically
from .trackers import open_trackers


def escape_unencodable() -> None:
    """Let stdout write letters that its encoding lacks as escapes, as stderr does."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors != "backslashreplace":
        sys.stdout.reconfigure(errors="backslashreplace")


class Console:
    """Lines to stdout and a progress bar to stderr, from rank 0 only.

    Args:
        speak: False on the other ranks, which stay silent.
        folder: where log.txt and metrics.jsonl are kept, None for nowhere.
        trackers: to which of ``TRACKERS`` the metrics also go.
        config: the run's recipe, for these.

    Raises:
        UsageError: when the package of a tracker is not installed.
    """

    def __init__(
        self,
        speak: bool = True,
        folder: Optional[Path] = None,
        trackers: Sequence[str] = (),
        config: Optional[Dict[str, Any]] = None,
    ):
        escape_unencodable()
        self.speak = speak
        self.folder = folder if speak else None
        self._trackers = open_trackers(trackers, self.folder, config or {}) if self.folder else []
        self.live = speak and sys.stderr.isatty()  # a bar is drawn; else lines tell the progress
        self._bar: Optional[tqdm] = None

    def line(self, text: str) -> None:
        """A line that matters: always shown."""
        if self.speak:
            with self._outliving_its_reader():
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()
        self._log(text)

    def tick(self, text: str) -> None:
        """A line on the progress: shown where there is no bar."""
        if self.live:
            self._log(text)
        else:
            self.line(text)

    def start_bar(
        self, description: str, total: int, initial: int = 0, unit: str = " images"
    ) -> None:
        """Draw a bar until ``stop_bar``, where there is a terminal, as wide as that is then."""
        self._bar = tqdm(
            desc=description,
            total=total,
            initial=initial,
            unit=unit,
            dynamic_ncols=True,
            leave=False,
            disable=not self.live,
            file=sys.stderr,
        )

    def advance(self, count: int, **postfix: str) -> None:
        """Move the bar on by ``count``."""
        if self._bar is not None:
            with self._outliving_its_reader():
                self._bar.update(count)
            if postfix:
                self._bar.set_postfix(postfix, refresh=False)

    def stop_bar(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            with self._outliving_its_reader():
                self._bar.close()
            self._bar = None

    def metrics(self, **values: Any) -> None:
        """Append one JSON object to metrics.jsonl."""
        if self.folder is not None:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(values) + "\n")
        for tracker in self._trackers:
            tracker.add(values)

    def rewind_metrics(self, step: int) -> None:
        """Drop what was written after ``step``: a resumed run writes it again."""
        if self.folder is not None and (self.folder / "metrics.jsonl").exists():
            kept = [row for row in read_metrics(self.folder) if row.get("step", 0) <= step]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            write_atomically(self.folder / "metrics.jsonl", text.encode())
        for tracker in self._trackers:
            tracker.rewind(step)

    def close(self) -> None:
        """Say to the trackers that the run has ended."""
        for tracker in self._trackers:
            tracker.close()

    def _log(self, text: str) -> None:
        if self.folder is not None:
            path = self.folder / "log.txt"
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text + "\n")

    @contextlib.contextmanager
    def _outliving_its_reader(self) -> Iterator[None]:
        """Go on in silence when the terminal is gone: there is still a run to be saved.

        A run, which has a log, outlives what it was piped into as well: Ctrl-C ends ``tee`` first.
        """
        gone = (errno.EIO, errno.EPIPE) if self.folder is not None else (errno.EIO,)
        try:
            yield
        except OSError as error:
            if error.errno not in gone:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):
                os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


class SplitBar:
    """A progress bar for each split of a data set that is gone through.

    Args:
        verb: what is done to its images, such as Read.
    """

    def __init__(self, verb: str) -> None:
        self.console = Console()
        self._verb = verb
        self._split = ""
        self._done = 0

    def __call__(self, split: str, done: int, total: int) -> None:
        """Of ``split``, ``done`` images of ``total`` are done."""
        if split != self._split:
            self.console.stop_bar()
            self.console.start_bar(f"{self._verb} {split}", total)
            self._split, self._done = split, 0
        self.console.advance(done - self._done)
        self._done = done


def read_metrics(folder: Path) -> List[Dict[str, Any]]:
    """The rows of a run's metrics.jsonl, up to one that is damaged, such as a crash leaves."""
    rows: List[Dict[str, Any]] = []
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(row, dict) or type(row.get("step", 0)) is not int:
            break
        rows.append(row)
    return rows
