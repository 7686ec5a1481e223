"""What archives hold: where the bytes of every file lie, from one look at their headers.

The result is kept beside MegEngine's other files (``MGE_HOME``), because a look at ImageNet's
archives takes minutes. It is used again while the archives have the size and the time of change
that they had; whatever else is wrong with what was kept, the archives are looked at anew.
"""

import hashlib
import json
import logging
import os
import re
import stat
import struct
import zipfile
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from megengine.hub.hub import _get_megengine_home

from official.private_folder import private_folder, why_not_private

from ...errors import DataError
from ...readers.tar_file import is_tar, members
from ...readers.text_file import open_regular
from ..image import MAX_BYTES

logger = logging.getLogger(__name__)

_VERSION = 1
_COLUMNS = ("shard", "offset", "size", "packed")
_LONG = 1 << 33  # bytes of archives that are worth a word before they are looked at
_MAX_LABEL = 1 << 16  # bytes of a file that holds a label
_MAX_ENTRIES = 20_000_000  # of a zip archive; ImageNet's largest collection has 14 million images
_LABEL_KEYS = ("label", "cls", "class", "class_id")
_SURROGATES = re.compile("[\ud800-\udfff]")
_DAMAGED = (zipfile.BadZipFile, zlib.error, NotImplementedError, struct.error)
_END = struct.Struct("<4s6xHII2x")  # a zip archive's end: entries, bytes and place of its directory
_END64 = struct.Struct("<4s28xQQ8x")
_LOCAL = struct.Struct("<4s22xHH")  # before a member: signature, lengths of its name and the extra


class _Found(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int  # of its bytes in a tar archive, of its local header in a zip archive
    size: int  # bytes, unpacked
    packed: int = 0  # bytes in the archive where it is compressed
    text: str = ""  # the label that it holds, where it holds one


@dataclass(frozen=True)
class Entries:
    """The files in one archive or several, in their order."""

    shards: Tuple[str, ...]  # paths of the archives
    stamps: np.ndarray  # (shards, 2) int64: size in bytes, time of the last change in ns
    names: Tuple[str, ...]
    texts: Tuple[str, ...]  # labels, of the files that hold one and nothing else
    shard: np.ndarray  # (N,) int64, which of the archives
    offset: np.ndarray  # (N,) int64
    size: np.ndarray  # (N,) int64
    packed: np.ndarray  # (N,) int64, bytes in the archive where it is compressed, else 0
    is_zip: np.ndarray  # (shards,) bool

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        """A file's archive and its name there, for messages."""
        return f"{self.shards[self.shard[index]]}: {self.names[index]}"

    def read(self, index: int) -> bytes:
        """A file's bytes, wherever other threads read at the time.

        Raises:
            DataError: naming archive and file, when these have changed or are damaged.
        """
        shard, size = int(self.shard[index]), int(self.size[index])
        if max(size, int(self.packed[index])) > MAX_BYTES:
            raise DataError(
                f"{self.where(index)}: has {size:,} bytes; expected at most {MAX_BYTES:,}"
            )
        path = self.shards[shard]
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                if _stamp(file) != tuple(self.stamps[shard].tolist()):
                    raise DataError(f"{path}: has changed since it was opened; start anew")
                if self.is_zip[shard]:
                    return self._unzipped(file, index, size)
                return os.pread(file, size, int(self.offset[index]))
            finally:
                os.close(file)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def _unzipped(self, file: int, index: int, size: int) -> bytes:
        """See APPNOTE.TXT of PKWARE, sections 4.3.7 and 4.3.8, for what is before the bytes."""
        offset, packed = int(self.offset[index]), int(self.packed[index])
        head = os.pread(file, _LOCAL.size, offset)
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise DataError(f"{self.where(index)}: is not where the archive's directory says")
        _, name, extra = _LOCAL.unpack(head)
        data = os.pread(file, packed or size, offset + _LOCAL.size + name + extra)
        if not packed:
            return data
        try:
            unpacked = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
        except zlib.error as error:
            raise DataError(f"{self.where(index)}: is damaged ({error})") from None
        if len(unpacked) != size:
            raise DataError(f"{self.where(index)}: does not unpack to the {size:,} bytes promised")
        return unpacked


def look_into(paths: Sequence[Path]) -> Entries:
    """The files in these archives, each a plain tar or a zip archive; a tar in a tar is one too.

    Raises:
        DataError: naming an archive that is missing, damaged, or none that can be read in place.
    """
    shards = tuple(str(path.absolute()) for path in paths)
    stamps = np.array([_stamp_of(path) for path in paths], np.int64).reshape(-1, 2)
    kept = _Kept(shards, stamps)
    entries = kept.load()
    if entries is None:
        if stamps[:, 0].sum() > _LONG:
            logger.warning("%s: looking for its files; this is done once", paths[0])
        # A name that comes twice is the later file's, as for whoever unpacks the archive.
        found = [list({each.name: each for each in _scan(path)}.values()) for path in paths]
        entries = _join(shards, stamps, found, [_is_zip(path) for path in paths])
        kept.save(entries)
    return entries


def _join(
    shards: Tuple[str, ...], stamps: np.ndarray, found: List[List[_Found]], is_zip: List[bool]
) -> Entries:
    flat = [each for part in found for each in part]
    numbers = np.array([each[1:4] for each in flat], np.int64).reshape(-1, 3)
    return Entries(
        shards,
        stamps,
        tuple(each.name for each in flat),
        tuple(each.text for each in flat),
        np.repeat(np.arange(len(found)), [len(part) for part in found]),
        np.ascontiguousarray(numbers[:, 0]),
        np.ascontiguousarray(numbers[:, 1]),
        np.ascontiguousarray(numbers[:, 2]),
        np.array(is_zip, bool),
    )


def _scan(path: Path) -> List[_Found]:
    try:
        with open_regular(path) as file:
            head = file.read(512)
            if head[:2] == b"\x1f\x8b":
                raise DataError(
                    f"{path}: is compressed as a whole, so no image can be read by itself; unpack "
                    f"it once: gunzip --keep '{path}'"
                )
            if _is_zip(path):
                return list(_scan_zip(path))
            if not is_tar(head):
                raise DataError(f"{path}: neither a tar nor a zip archive; download it again")
            size = os.fstat(file.fileno()).st_size
            return list(_scan_tar(file.fileno(), path, 0, size, ""))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _is_zip(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def _scan_tar(file: int, path: Path, start: int, end: int, inside: str) -> Iterator[_Found]:
    for member in members(file, path, start, end):
        name = inside + member.name
        if not member.is_file:
            continue
        if not inside and name.lower().endswith(".tar"):
            stop = member.offset + member.size
            yield from _scan_tar(file, path, member.offset, stop, f"{name}/")
            continue
        text = ""
        if name.lower().endswith((".cls", ".json")) and member.size <= _MAX_LABEL:
            text = _label(name, os.pread(file, member.size, member.offset))
        yield _Found(name, member.offset, member.size, text=text)


def _label(name: str, content: bytes) -> str:
    """The label in one of WebDataset's files for it, as text without line feeds; "" for none."""
    text: object = content.decode("utf-8", "surrogateescape")  # two labels stay two
    if name.lower().endswith(".json"):
        try:
            values = json.loads(content)
        except (ValueError, RecursionError):
            return ""
        values = values if isinstance(values, dict) else {}
        text = next((values[key] for key in _LABEL_KEYS if key in values), "")
        if isinstance(text, str) and _SURROGATES.search(text):  # "\\ud800", which is no letter
            return ""
    if type(text) not in (str, int):
        return ""
    return " ".join(str(text)[:1000].replace("\0", " ").split())


def _scan_zip(path: Path) -> Iterator[_Found]:
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise DataError(f"{path}: its directory is damaged ({error}); download it again") from None
    for info in infos:
        if info.filename.endswith("/") or not info.filename:  # is_dir() fails without a name
            continue
        if info.flag_bits & 0x41 or info.compress_type not in (0, 8):
            way = "encrypted" if info.flag_bits & 0x41 else "packed in a rare way"
            raise DataError(f"{path}: its {info.filename!a} is {way}; unpack the archive")
        packed = info.compress_size if info.compress_type else 0
        yield _Found(info.filename, info.header_offset, info.file_size, packed)


def _check_directory(path: Path) -> None:
    """Refuse a directory so long that reading it would fill the memory."""
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - (1 << 16) - _END.size)
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > len(tail):
            raise DataError(f"{path}: the archive is cut short; download it again")
        count = _END.unpack_from(tail, at)[1]
        length = _END.unpack_from(tail, at)[2]
        if 0xFFFFFFFF in (length, _END.unpack_from(tail, at)[3]) or count == 0xFFFF:
            at = tail.rfind(b"PK\x06\x06", 0, at)
            if 0 <= at <= len(tail) - _END64.size:
                _, count, length = _END64.unpack_from(tail, at)
    if max(count, length // 46) > _MAX_ENTRIES:
        raise DataError(f"{path}: has more than {_MAX_ENTRIES:,} files")


class _Kept:
    """Where a look's result is kept: in a folder that nobody else can put a file into."""

    def __init__(self, shards: Tuple[str, ...], stamps: np.ndarray):
        self._shards, self._stamps = shards, stamps
        digest = hashlib.sha256("\0".join((str(_VERSION), *shards)).encode("utf-8", "replace"))
        wanted = str(Path(_get_megengine_home()) / "resnet_indexes")
        try:
            folder, problem = private_folder(wanted, "resnet_indexes")
        except OSError:  # it is not kept then, which costs time only
            folder, problem = wanted, ""
        if problem:
            logger.warning("%s; the places of images are kept in %s", problem, folder)
        self._path = Path(folder) / f"{digest.hexdigest()}.npz"

    def load(self) -> Optional[Entries]:
        """None where it was not kept, or is not of these archives, or of somebody else."""
        if why_not_private(str(self._path)):
            return None
        try:
            # A pipe would be waited for, and a link may lead anywhere.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(self._path, flags), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
                    return None
                with np.load(file, allow_pickle=False) as archive:
                    # A member that is no array comes as bytes.
                    kept = {name: np.asarray(archive[name]) for name in archive.files}
            if not np.array_equal(kept["stamps"], self._stamps):
                return None
            names, texts = _split(kept["names"]), _split(kept["texts"])
            columns = {key: kept[key] for key in (*_COLUMNS, "is_zip")}
        except (OSError, ValueError, KeyError, EOFError, MemoryError, *_DAMAGED):
            return None
        entries = Entries(self._shards, self._stamps, names, texts, **columns)
        return entries if _is_sound(entries) else None

    def save(self, entries: Entries) -> None:
        """Whole or not at all; a cache that cannot be written only costs time."""
        with suppress(OSError), NamedTemporaryFile(dir=self._path.parent, delete=False) as file:
            try:
                np.savez(
                    file,
                    stamps=entries.stamps,
                    names=_joined(entries.names),
                    texts=_joined(entries.texts),
                    is_zip=entries.is_zip,
                    **{key: getattr(entries, key) for key in _COLUMNS},
                )
                file.close()
                Path(file.name).replace(self._path)
            except BaseException:
                Path(file.name).unlink()
                raise


def _is_sound(entries: Entries) -> bool:
    """Whether the columns fit each other and lie in the archives."""
    columns = [getattr(entries, key) for key in _COLUMNS]
    if any(column.dtype != np.int64 or column.shape != (len(entries),) for column in columns):
        return False
    if len(entries.texts) != len(entries) or entries.is_zip.shape != (len(entries.shards),):
        return False
    if not len(entries):
        return True
    if min(column.min() for column in columns) < 0 or entries.shard.max() >= len(entries.shards):
        return False
    lengths = entries.stamps[entries.shard, 0]
    return bool((entries.offset <= lengths).all() and (entries.packed <= lengths).all())


def _joined(texts: Sequence[str]) -> np.ndarray:
    data = "".join(text + "\0" for text in texts).encode("utf-8", "surrogateescape")
    return np.frombuffer(data, np.uint8)


def _split(array: np.ndarray) -> Tuple[str, ...]:
    return tuple(array.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1])


def _stamp(file: int) -> Tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def _stamp_of(path: Path) -> Tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns
