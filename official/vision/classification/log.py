"""Remarks on stderr: the same from a script's only process as from one of many."""

import logging

from .text import printable


class _Formatter(logging.Formatter):
    """Names in a message may come from a file of unknown origin, and must not steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def log_to_stderr(prog: str, level: int = logging.WARNING) -> None:
    """Show what is remarked from ``level`` on as ``<prog>: <message>``, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(f"{prog}: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
