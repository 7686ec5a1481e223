"""A rank's process, seen from its launcher: what it reports, and what became of it."""

import contextlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import Any, Dict, Optional

from ..text import printable


@dataclass(frozen=True)
class Failure:
    """What went wrong with a rank, in letters that neither steer a terminal nor break XML.

    Args:
        text: one line for the user.
        error: name of the class of the rank's exception; "" for none, or for one whose
            traceback the user must see.
        traceback: of the rank, "" if there is none.
        is_cause: False when it only shows that another rank has gone.
    """

    text: str
    error: str = ""
    traceback: str = ""
    is_cause: bool = True


class RankProcess:
    """The launcher's end of a rank.

    Args:
        number, index: among all ranks, and on this node.
        receiving: descriptor of the pipe with its reports; it ends when the process does.
        assignment: for its stdin.
    """

    def __init__(
        self, number: int, index: int, process: subprocess.Popen, receiving: int, assignment: bytes
    ):
        self.number = number
        self.index = index
        self.process = process
        self.receiving = receiving
        self.assignment = assignment
        self.is_ready = False
        self.final: Optional[Dict[str, Any]] = None  # its last report
        self.has_ended = False
        self._unread = b""

    def assign(self) -> None:
        """Tell it what to do; one that has ended already has said so on stderr."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(self.assignment)
            self.process.stdin.close()

    def read(self) -> None:
        """Take in what it reports."""
        data = os.read(self.receiving, 1 << 16)
        if not data:
            self.has_ended = True
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if report["is"] == "ready":
                self.is_ready = True
            else:
                self.final = report

    @property
    def is_done(self) -> bool:
        """Whether its work has returned."""
        return self.final is not None and self.final["is"] == "done"

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C has ended its work."""
        return self.final is not None and self.final["is"] == "interrupted"

    @property
    def is_unheard(self) -> bool:
        """Whether nobody reads its output any more."""
        return self.final is not None and self.final["is"] == "unheard"

    @property
    def is_lost(self) -> bool:
        """Whether it has ended because another rank had."""
        return self.final is not None and self.final["is"] == "lost"

    def failure(self) -> Optional[Failure]:
        """What went wrong, as far as is known by now."""
        if self.final is not None:
            if self.final["is"] == "failed":
                return self._reported_failure()
            if self.is_lost:
                text = f"rank {self.number}: {printable(self.final['message'])}"
                return Failure(text, is_cause=False)
            if self.final["is"] == "interrupted":
                return Failure(f"rank {self.number} was interrupted")
            return None
        if not self.has_ended:
            return None
        code = self.process.wait()
        if code >= 0:
            text = f"ended with exit code {code} before its work was done"
        else:
            text = f"was ended by {signal.Signals(-code).name}"
            if code == -signal.SIGKILL:
                text += ", as the kernel does when memory runs out"
        return Failure(f"rank {self.number} {text}")

    def _reported_failure(self) -> Failure:
        final = self.final
        message = printable(final["message"])  # it may quote a file of unknown origin
        traceback = "\n".join(map(printable, final["traceback"].split("\n")))
        if message:
            return Failure(f"rank {self.number}: {message}", final["error"], traceback)
        text = f"rank {self.number} has failed: {printable(final['summary'])}"
        return Failure(text, "", traceback)

    def end(self) -> None:
        """Kill it, if it still lives, and leave nothing of it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        os.close(self.receiving)
