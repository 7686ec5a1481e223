"""Files that are written whole or not at all."""

import contextlib
import os
from pathlib import Path

from ..errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``; at any instant it holds the old content or the new.

    Raises:
        UserError: when the disk is full or the folder is gone.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise UserError(
            f"{path}: cannot be written: {error.strerror}; what was there before is kept"
        ) from None
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself, not only the content, survives a power cut
    finally:
        os.close(folder)
