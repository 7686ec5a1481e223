"""Ending a run between two steps instead of in the middle of one."""

import signal
from types import FrameType
from typing import Optional


class StopRequest:
    """While entered, turns the first Ctrl-C or SIGTERM into a note; the second one is let through.

    Use as a context manager and look at ``came`` after every step.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.number: Optional[int] = None
        self._before: dict = {}

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
        for number in self.SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _note(self, number: int, frame: Optional[FrameType]) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
