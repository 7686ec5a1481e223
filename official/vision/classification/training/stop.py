"""Ending a run between two steps instead of in the middle of one."""

import signal
from types import FrameType
from typing import Any, Dict, Optional

from ..distributed.collectives import world_size
from ..distributed.supervisor import STOP_SIGNALS, handle_signals, restore_signals


class StopRequest:
    """While entered, turns a signal that ends programs into a note, so that the run can be saved.

    The second Ctrl-C or SIGTERM is let through. SIGHUP, SIGUSR1 and SIGUSR2 are not: a terminal
    that is lost, and a scheduler that warns, may say so more than once. One of several ranks lets
    none through: Slurm sends a signal to every process of a job, so that ranks get it twice, and
    the launcher ends those that do not obey.

    Use as a context manager and look at ``came`` after every step.
    """

    SIGNALS = STOP_SIGNALS

    def __init__(self):
        self.number: Optional[int] = None
        self._before: Dict[int, Any] = {}

    @property
    def came(self) -> bool:
        """Whether there was a signal."""
        return self.number is not None

    @property
    def signal_name(self) -> str:
        """The signal that came, here or to another rank."""
        return signal.Signals(self.number or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that this signal has ended."""
        return 128 + (self.number or signal.SIGTERM)

    def __enter__(self) -> "StopRequest":
        self._before = handle_signals(self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        restore_signals(self._before)

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self.number = self.number or number
        if world_size() == 1 and number in (signal.SIGINT, signal.SIGTERM):
            urgent = (signal.SIGINT, signal.SIGTERM)
            restore_signals({each: self._before[each] for each in urgent if each in self._before})
