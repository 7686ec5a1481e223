"""Lines of a text file from outside, for the lists that some data sets come with."""

from pathlib import Path
from typing import List

from ..errors import DataError

MAX_BYTES = 1 << 28  # ImageNet's 1.3 million paths have 60 MB


def read_lines(path: Path) -> List[str]:
    """The lines without their ends, in UTF-8 with or without a byte order mark.

    Raises:
        DataError: naming the file, when it is missing, too long, or no text.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: has more than {MAX_BYTES:,} bytes; expected a list of images")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: is no text in UTF-8") from None
    if "\0" in text:
        raise DataError(f"{path}: holds a null character, which no path can have")
    return text.split("\n")
