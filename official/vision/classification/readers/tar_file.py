"""Reads tar archives: chosen files into memory, or where the files of a plain one lie.

The archive may be hostile. Nothing is written to the disk and no link is followed; a file's size
is checked before it is read; and what is unpacked to get at a file is bounded, so that a small
archive cannot keep anyone busy for long.
"""

import gzip
import itertools
import os
import tarfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Callable, Dict, Iterator, NamedTuple, Tuple, Union

from ..errors import DataError
from .text_file import open_regular

MAX_UNPACKED = 1 << 30  # six times CIFAR-100
MAX_MEMBERS = 10_000  # an archive of CIFAR has nine; each costs some 30 us, whatever its size
_BLOCK = 512
_PIECE = 1 << 20
_GZIP = b"\x1f\x8b"
_MAX_EXTENDED = 1 << 20  # bytes of an extended header; a name has a few hundred
_GNU_NAME, _GNU_LINK = b"L", b"K"


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
        self._file: Union[BinaryIO, gzip.GzipFile] = stack.enter_context(open_regular(path))
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


class Member(NamedTuple):
    """A file of a plain tar archive, or what else stands in its place."""

    name: str
    offset: int  # where its bytes start in the archive
    size: int  # in bytes
    is_file: bool  # or a folder, a link, a device, a file with holes


def members(file: int, path: Path, start: int, end: int) -> Iterator[Member]:
    """What a plain tar archive holds, in its order, from its headers alone.

    Long names are read in GNU's form (tar's manual, "Extended Headers") and in that of POSIX.1-2001
    (pax). A header costs its 512 bytes, so the time is in proportion to the archive's size.

    Args:
        file: a descriptor of the file that holds it.
        path: its name, for messages.
        start, end: where the archive lies in the file, which may hold others.

    Raises:
        DataError: naming the archive, when it is damaged or cut short.
    """
    at, inside = start, "its start"
    extended: Dict[str, str] = {}  # what headers before a member say of it
    while at < end:
        header = os.pread(file, _BLOCK, at)
        at += _BLOCK
        if len(header) == _BLOCK and not any(header):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
            size = max(0, _number(extended["size"]) if "size" in extended else info.size)
        except (tarfile.HeaderError, ValueError):
            raise DataError(f"{path}: damaged after {inside!a}; download it again") from None
        if info.type in (tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE):
            size = 0  # whatever they say, no bytes follow
        if info.type == tarfile.GNUTYPE_SPARSE:
            at = _after_map(file, header, at)
        if at + size > end:
            raise DataError(f"{path}: the archive is cut short in {info.name!a}; download it again")
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, _GNU_NAME, _GNU_LINK):
            if size > _MAX_EXTENDED:
                raise DataError(f"{path}: {size:,} bytes describe what comes after {inside!a}")
            try:
                extended.update(_described(info.type, os.pread(file, size, at)))
            except ValueError:
                raise DataError(f"{path}: damaged after {inside!a}; download it again") from None
        else:
            name = extended.get("path", info.name)
            is_file = info.isreg() and info.type != tarfile.GNUTYPE_SPARSE
            is_file = is_file and "GNU.sparse.major" not in extended
            yield Member(name, at, size, is_file)
            extended, inside = {}, name
        at += -(-size // _BLOCK) * _BLOCK


def is_tar(head: bytes) -> bool:
    """Whether a file that starts with these 512 bytes is a plain tar archive."""
    try:
        tarfile.TarInfo.frombuf(head[:_BLOCK], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _after_map(file: int, header: bytes, at: int) -> int:
    """Where the bytes of a file with holes start: after the blocks that say where these are."""
    more = header[482:483]
    while more and any(more):
        more = os.pread(file, _BLOCK, at)[504:505]
        at += _BLOCK
    return at


def _described(kind: bytes, content: bytes) -> Dict[str, str]:
    """What an extended header says of the member after it: its path, its size."""
    if kind == _GNU_NAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    found: Dict[str, str] = {}
    at = 0
    while kind == tarfile.XHDTYPE and at < len(content):
        digits = content[at : at + 20].partition(b" ")[0]
        length = _number(digits.decode("ascii", "replace"))
        record = content[at + len(digits) + 1 : at + length - 1]  # ends with a line feed
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at += max(1, length)
    return found


def _number(text: str) -> int:
    """A decimal number without a sign.

    Raises:
        ValueError: when it is none, or too long to be one of these.
    """
    if not (text.isdecimal() and len(text) < 20):
        raise ValueError(text)
    return int(text)
