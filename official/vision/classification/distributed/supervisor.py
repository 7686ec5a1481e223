"""Looking after the ranks of a node: who fails first, who stalls, and that nobody is left over."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, List, Optional

from .. import errors
from ..errors import UserError
from ..text import printable
from .heartbeat import Heartbeats
from .rendezvous import CALL_EVERY, Rendezvous, Topology

_TICK = 0.1  # seconds between two looks at what no pipe tells
_GRACE = 2.0  # seconds for a cause to show itself when a consequence has been seen
_ENDING = 5.0  # seconds for the last processes to end when others have
_STARTING = 300.0  # the least seconds before a rank that has not begun to work has stalled


# Ctrl-C, the end of a job or a container, a terminal that is lost, and what schedulers send before
# the end of a job's time when they are asked to (Slurm's --signal).
STOP_SIGNALS = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2),
    signal.SIGXCPU,  # Grid Engine, and "ulimit -t", at a soft limit of CPU time
)


def handle_signals(handler: Callable[[int, Optional[FrameType]], None]) -> Dict[int, Any]:
    """Let ``handler`` have ``STOP_SIGNALS``; what had them before, for ``restore_signals``.

    What is ignored stays so: nohup ignores SIGHUP in order that a run outlives its terminal.
    """
    wanted = [each for each in STOP_SIGNALS if signal.getsignal(each) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in wanted}


def restore_signals(before: Dict[int, Any]) -> None:
    """Undo ``handle_signals``."""
    for number, handler in before.items():
        signal.signal(number, handler)


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
        if self.process.stdin is not None:
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
    def exit_code(self) -> int:
        """What its work has returned, or 1."""
        return 1 if self.final is None else int(self.final.get("code", 1))

    @property
    def was_interrupted(self) -> bool:
        """Whether Ctrl-C has ended its work."""
        return self.final is not None and self.final["is"] == "interrupted"

    @property
    def is_output_closed(self) -> bool:
        """Whether nobody reads its output any more."""
        return self.final is not None and self.final["is"] == "output_closed"

    @property
    def has_lost_peer(self) -> bool:
        """Whether it has ended because another rank had."""
        return self.final is not None and self.final["is"] == "peer_lost"

    def failure(self) -> Optional[Failure]:
        """What went wrong, as far as is known by now."""
        if self.final is not None:
            if self.final["is"] == "failed":
                return self._reported_failure(self.final)
            if self.final["is"] == "peer_lost":
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

    def _reported_failure(self, final: Dict[str, Any]) -> Failure:
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
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        os.close(self.receiving)


class RankTraceback(Exception):
    """The cause of an error that was raised in another process: its traceback, as text."""

    def __str__(self) -> str:
        return "\n" + self.args[0]


class Supervisor:
    """Runs the ranks of a node to their end.

    Args:
        start: starts the process of a rank, by its index on this node.
        table: the ranks' signs of life.
        rendezvous: where nodes tell each other what has failed.
    """

    def __init__(
        self,
        start: Callable[[int], RankProcess],
        topology: Topology,
        table: Heartbeats,
        rendezvous: Rendezvous,
    ):
        self.start = start
        self.topology = topology
        self.table = table
        self.rendezvous = rendezvous
        self.ranks: List[RankProcess] = []
        self.signal = 0  # the first that came
        self.is_hurried = False  # a second one came, or the first too early to be handed on
        self._since: Dict[str, float] = {}  # what lasts: when it began

    def run(self) -> int:
        """The highest exit code of the ranks.

        Raises:
            UserError, KeyboardInterrupt: as ``launch``.
        """
        before = handle_signals(self._note)
        try:
            for index in range(self.topology.ngpus):
                self.table.beat(index)
                self.ranks.append(self.start(index))
            for rank in self.ranks:
                rank.assign()
            failure = self._wait()
        finally:
            for rank in self.ranks:
                rank.end()
            restore_signals(before)
        return self._outcome(failure)

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        """Hand the first signal on to ranks that can do something about it."""
        if self.signal and number not in (signal.SIGINT, signal.SIGTERM):
            return  # a warning that comes again
        all_ready = len(self.ranks) == self.topology.ngpus and all(r.is_ready for r in self.ranks)
        self.is_hurried = bool(self.signal) or not all_ready
        self.signal = self.signal or number
        if not self.is_hurried:
            for rank in self.ranks:
                if rank.process.poll() is None:
                    rank.process.send_signal(number)

    def _wait(self) -> Optional[Failure]:
        """Until every rank has ended, or the user wants no more, or something has failed."""
        with selectors.DefaultSelector() as selector:
            for rank in self.ranks:
                selector.register(rank.receiving, selectors.EVENT_READ, rank)
            while not self.is_hurried:
                for key, _ in selector.select(_TICK):
                    key.data.read()
                    if key.data.has_ended:
                        selector.unregister(key.fileobj)
                failure = self._find_failure()
                if failure is not None or self._are_finished():
                    return failure
        return None

    def _are_finished(self) -> bool:
        """Whether all ranks have ended, or should have: those that are done, or all if one is not
        there any more because the user wished so."""
        if all(rank.has_ended for rank in self.ranks):
            return "consequence" not in self._since
        if any(rank.is_output_closed for rank in self.ranks):
            return True
        one_has_obeyed = self.signal and any(map(self._has_obeyed, self.ranks))
        all_are_done = all(rank.final is not None for rank in self.ranks)
        return self._has_lasted("ending", one_has_obeyed or all_are_done, _ENDING)

    def _has_obeyed(self, rank: RankProcess) -> bool:
        """Whether the signal that was handed on has ended it, rather than made it return."""
        if not self.signal:
            return False
        return rank.was_interrupted or (rank.has_ended and rank.process.wait() == -self.signal)

    def _find_failure(self) -> Optional[Failure]:
        """The first cause, or a consequence when no cause has shown itself for a while."""
        found = [rank.failure() for rank in self.ranks if not self._has_obeyed(rank)]
        failures = [failure for failure in found if failure is not None]
        causes = [failure for failure in failures if failure.is_cause] or self._find_stalled()
        failure = causes[0] if causes else None
        alone = bool(failures) and not causes and not any(map(self._has_obeyed, self.ranks))
        if self._has_lasted("consequence", alone, _GRACE):
            failure = self._explain(failures[0])
        if self.topology.nodes > 1:
            failure = self._exchange_news(failure)
        return failure

    def _explain(self, consequence: Failure) -> Failure:
        done = [str(rank.number) for rank in self.ranks if rank.is_done]
        if not done:
            return consequence
        text = f"{consequence.text}; rank {', '.join(done)} had done its work before"
        return Failure(text, is_cause=False)

    def _find_stalled(self) -> List[Failure]:
        at_work = [rank.index for rank in self.ranks if rank.final is None and not rank.has_ended]
        limit = self.topology.timeout
        if not all(rank.is_ready for rank in self.ranks):
            limit = max(limit, _STARTING)
        index = self.table.stalled(at_work, limit)
        if index is None:
            return []
        stopped = next((rank for rank in self.ranks if _is_stopped(rank.process.pid)), None)
        if stopped is not None:
            index = stopped.index
            why = "it has stalled, stopped by a signal such as SIGSTOP"
        elif not self.table.is_waiting(index):
            why = "it has stalled"
        elif self.topology.nodes > 1:
            why = "waiting for other nodes"
        else:
            why = "all ranks of this machine wait for each other"
        return [
            Failure(
                f"rank {self.ranks[index].number} has shown no progress for {limit:g} s: "
                f"{why} (--dist-timeout sets the limit)"
            )
        ]

    def _exchange_news(self, failure: Optional[Failure]) -> Optional[Failure]:
        """Tell the other nodes of ``failure``; without a cause, hear what has failed there."""
        if failure is None:
            if not self._has_lasted("silence", True, CALL_EVERY):
                return None
            del self._since["silence"]
        if failure is None or not failure.is_cause:
            told = self.rendezvous.exchange("", False)  # once: whoever tells may end after it
            if told and any(rank.final is None or rank.has_lost_peer for rank in self.ranks):
                return Failure(told)
        if failure is not None:
            self.rendezvous.exchange(f"node {self.topology.node}: {failure.text}", False)
        return failure

    def _has_lasted(self, what: str, holds: bool, seconds: float) -> bool:
        """Whether ``holds`` has been true at every call for ``what`` in so many seconds."""
        if not holds:
            self._since.pop(what, None)
            return False
        return time.monotonic() - self._since.setdefault(what, time.monotonic()) > seconds

    def _outcome(self, failure: Optional[Failure]) -> int:
        if failure is not None:
            raise self._error(failure) from (
                RankTraceback(failure.traceback) if failure.traceback else None
            )
        if any(rank.is_output_closed for rank in self.ranks):
            raise BrokenPipeError
        was_cut_off = self.is_hurried or any(map(self._has_obeyed, self.ranks))
        name = signal.Signals(self.signal).name if self.signal else ""
        cut_off = f"node {self.topology.node} was ended by {name}" if was_cut_off else ""
        self.rendezvous.exchange(cut_off, True)
        if not was_cut_off:
            return max(rank.exit_code for rank in self.ranks)
        if self.signal == signal.SIGINT:
            raise KeyboardInterrupt
        return 128 + self.signal

    def _error(self, failure: Failure) -> UserError:
        """As the rank would have raised it; what no user can mend is shown with its traceback."""
        if failure.traceback and not failure.error:
            sys.stderr.write(failure.traceback)
        kind = getattr(errors, failure.error or "UserError", UserError)
        return kind(failure.text if failure.error else f"{failure.text}; the others were ended")


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process, by Linux's letter for its state."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False
