"""Files from outside that are regular ones, and the lines of texts: lists that data sets have."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, List

from ..errors import DataError

MAX_BYTES = 1 << 28  # ImageNet's 1.3 million paths have 60 MB


def open_regular(path: Path) -> BinaryIO:
    """Open a file to be read in binary mode.

    Raises:
        OSError: when it cannot be opened, or is a pipe or a device, which may never end.
    """
    # Opening a pipe that nobody writes to would wait for ever.
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    mode = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(mode):
        return file
    file.close()
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def read_lines(path: Path) -> List[str]:
    """The lines without their ends, in UTF-8 with or without a byte order mark.

    Raises:
        DataError: naming the file, when it is missing, too long, or no text.
    """
    try:
        with open_regular(path) as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise DataError(f"{path}: has more than {MAX_BYTES:,} bytes; expected a list of images")
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text in UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: holds a null character, which no path can have")
    return text.split("\n")
