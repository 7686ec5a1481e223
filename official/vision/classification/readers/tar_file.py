"""Reads chosen files of a tar archive, plain or gzipped, into memory.

The archive may be hostile. Nothing is written to the disk and no link is followed; a file's size
is checked before it is read; and what is unpacked to get at a file is bounded, so that a small
archive cannot keep anyone busy for long.
"""

import gzip
import itertools
import tarfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Callable, Iterator, Tuple, Union

from ..errors import DataError

MAX_UNPACKED = 1 << 30  # six times CIFAR-100
MAX_MEMBERS = 10_000  # an archive of CIFAR has nine; each costs some 30 us, whatever its size
_BLOCK = 512
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"


def read_files(
    path: Path, is_wanted: Callable[[str], bool], max_bytes: int
) -> Iterator[Tuple[str, bytes]]:
    """Names and contents of the regular files that ``is_wanted``, in the archive's order.

    Extended headers are passed over: names of up to 100 characters do not need them.

    Raises:
        DataError: naming the archive, when it is no archive, damaged or cut short, or a wanted
            file has more than ``max_bytes``.
    """
    inside = ""
    try:
        with ExitStack() as stack:
            source = _Source(path, stack)
            for count in itertools.count():
                if count > MAX_MEMBERS:
                    raise DataError(
                        f"{path}: holds more than {MAX_MEMBERS:,} files; it is not the archive "
                        "that was expected"
                    )
                header = source.read(_BLOCK, may_end=True)
                if not any(header):  # the end mark, or the end of the file in its place
                    return
                member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
                inside, size = member.name, max(0, member.size)
                if member.isreg() and is_wanted(member.name):
                    if size > max_bytes:
                        raise DataError(
                            f"{path}: its {inside!a} has {size:,} bytes; expected at most "
                            f"{max_bytes:,}"
                        )
                    yield member.name, source.read(size)
                    size = -size % _BLOCK
                else:
                    size += -size % _BLOCK
                source.skip(size)
    except EOFError:
        where = f" in {inside!a}" if inside else ""
        raise DataError(f"{path}: the archive is cut short{where}; download it again") from None
    except tarfile.HeaderError:
        if inside:
            raise DataError(f"{path}: damaged after {inside!a}; download it again") from None
        raise DataError(
            f"{path}: neither a folder nor a .csv nor a tar archive; download it again if it "
            "should be one"
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the archive is damaged ({error}); download it again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _Source:
    """The unpacked bytes of a file, from its start to its end."""

    def __init__(self, path: Path, stack: ExitStack):
        self._path = path
        self._read = 0
        self._file: Union[BinaryIO, gzip.GzipFile] = stack.enter_context(path.open("rb"))
        is_packed = self._file.read(len(_GZIP)) == _GZIP
        self._file.seek(0)
        if is_packed:
            self._file = stack.enter_context(gzip.GzipFile(fileobj=self._file))

    def read(self, count: int, may_end: bool = False) -> bytes:
        """The next ``count`` bytes, or none where the file may end; EOFError if there are fewer."""
        self._read += count
        if self._read > MAX_UNPACKED:
            raise DataError(
                f"{self._path}: unpacks to more than {MAX_UNPACKED:,} bytes; it is not the "
                "archive that was expected"
            )
        data = self._file.read(count)
        if len(data) < count and (data or not may_end):
            raise EOFError
        return data

    def skip(self, count: int) -> None:
        while count:
            count -= len(self.read(min(count, _PIECE)))
