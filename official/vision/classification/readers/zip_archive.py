"""Gives access to the members of a zip archive whose members are stored and not compressed.

The format is PKWARE's APPNOTE.TXT: each member is a local header and its bytes, and a central
directory at the end says where. ``zipfile`` reads the directory; the members are taken from the
file's bytes without a copy. What a hostile archive can cost is bounded: the number of members is
checked before ``zipfile`` makes an object of each, a compressed member is refused, and members that
overlap are, so all of them together are no larger than the file.
"""

import io
import struct
import zipfile
import zlib
from typing import Dict, List

from .contents import Fault
from .pickle_data import shown

MAX_MEMBERS = 20_000  # the largest network here has 600 tensors, and an optimizer has two for each

_DIRECTORY_ENTRY = b"PK\x01\x02"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, and the lengths of the name and the extra
# Bits of the flags
_ENCRYPTED = 0x41  # 0 and 6: encryption, strong encryption
_UTF8 = 0x800


class ArchiveError(Fault):
    """An archive that is damaged, or that asks for more than its size. Says what and where."""


class Archive:
    """The members of ``data`` by name.

    Raises:
        ArchiveError: if the directory is damaged, too long, or lets members overlap.
    """

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        infos = _directory(data)
        self._members = {info.filename: info for info in infos}
        if len(self._members) != len(infos):
            raise ArchiveError("a member's name comes twice")
        self._starts = self._checked_starts(infos)
        # torch.serialization.set_crc32_options(False) writes 0 for all of them.
        self._has_checksums = any(info.CRC for info in infos)

    @property
    def names(self) -> List[str]:
        return list(self._members)

    def size(self, name: str) -> int:
        """A member's size in bytes, without looking at them."""
        return self._member(name).file_size

    def read(self, name: str) -> memoryview:
        """A member's bytes, which have the checksum that the directory gives.

        Raises:
            ArchiveError: if there is no such member, or it is compressed, encrypted or damaged.
        """
        info = self._member(name)
        start = self._starts[name]
        content = self._data[start : start + info.file_size]
        if self._has_checksums and zlib.crc32(content) != info.CRC:
            raise ArchiveError(f"the checksum of its member {shown(name)} is wrong")
        return content

    def _member(self, name: str) -> zipfile.ZipInfo:
        info = self._members.get(name)
        if info is None:
            raise ArchiveError(f"it has no member {shown(name)}")
        if info.flag_bits & _ENCRYPTED:
            raise ArchiveError(f"its member {shown(name)} is encrypted")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ArchiveError(f"its member {shown(name)} is compressed; PyTorch does not do that")
        return info

    def _checked_starts(self, infos: List[zipfile.ZipInfo]) -> Dict[str, int]:
        starts, end = {}, 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            name = shown(info.filename)
            if info.header_offset < end:
                raise ArchiveError(f"its member {name} overlaps another")
            start = self._start(info)
            end = start + info.compress_size
            if end > len(self._data):
                raise ArchiveError(f"its member {name} goes past the end")
            starts[info.filename] = start
        return starts

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Where a member's bytes start: after its local header, its name and an extra field."""
        at = info.header_offset
        header = self._data[at : at + _LOCAL_HEADER.size]
        if len(header) == _LOCAL_HEADER.size:
            signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            name_at = at + _LOCAL_HEADER.size
            name = bytes(self._data[name_at : name_at + name_length])
            encoding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
            if signature == b"PK\x03\x04" and name == info.orig_filename.encode(encoding):
                return name_at + name_length + extra_length
        raise ArchiveError(f"its member {shown(info.filename)} is not where the directory says")


def _directory(data: bytes) -> List[zipfile.ZipInfo]:
    # Bytes of a tensor can look like an entry, but hardly twenty thousand times.
    if data.count(_DIRECTORY_ENTRY) > MAX_MEMBERS:
        raise ArchiveError(f"it has more than {MAX_MEMBERS:,} members")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ArchiveError(f"its zip directory is damaged: {error}") from error
    except (ValueError, LookupError, ArithmeticError, OSError, EOFError, struct.error) as error:
        raise ArchiveError("its zip directory is damaged") from error
