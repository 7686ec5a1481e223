"""Parquet files as Hugging Face's hub has them: a column ``image`` of structs with ``bytes``, and a
column ``label`` of numbers. Needs pyarrow, which MegEngine brings along.

A row group is what can be read by itself. Those that were read last are kept, but in a random order
nearly every image costs the reading of a whole group: ``tools/prepare_data.py`` makes shards of
such files from which single images are read.
"""

import json
import logging
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from ...errors import DataError
from ...readers.text_file import open_regular
from ..dataset import ImageDataset
from ..image import decode_image

logger = logging.getLogger(__name__)

MAGIC = b"PAR1"
_MEMORY = 1 << 29  # bytes of row groups that are kept
_MAX_GROUP = 1 << 31  # bytes of one row group, unpacked
_SLOW_GROUP = 1 << 24  # from here on reading a group takes far longer than decoding an image
_IMAGE, _LABEL = "image", "label"
_PICKLED_TYPE = "arrow.py_extension_type"
_HUGGING_FACE = b"huggingface"  # the key under which its library describes the columns
_MAX_DESCRIPTION = 1 << 22


class _Groups:
    """Row groups of images, those used last in memory; for any number of threads."""

    def __init__(self, files: Sequence[Path]):
        self._files = files
        self._kept: OrderedDict[Tuple[int, int], Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def value(self, file: int, group: int, row: int) -> bytes:
        """The bytes of one image; none where the row has none."""
        key = (file, group)
        with self._lock:
            column = self._kept.get(key)
            if column is not None:
                self._kept.move_to_end(key)
        if column is None:
            column = _column(self._files[file], group)
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = column
                    self._bytes += column.nbytes
                while self._bytes > _MEMORY and len(self._kept) > 1:
                    self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return column[row].as_py() or b""


@dataclass(frozen=True)
class ParquetImages(ImageDataset):
    """Images in row groups; ``paths`` name the file and the row."""

    groups: _Groups
    places: np.ndarray  # (N, 3) int64: file, row group, row in it

    def read(self, index: int) -> np.ndarray:
        return decode_image(self.content(index), self.paths[index])

    def content(self, index: int) -> bytes:
        try:
            return self.groups.value(*self.places[index].tolist())
        except OSError as error:
            raise DataError(f"{self.paths[index]}: cannot be read: {error}") from None
        except IndexError:
            raise DataError(
                f"{self.paths[index]}: cannot be read: its images are fewer than the file says; "
                "download it again"
            ) from None


def is_parquet(path: Path) -> bool:
    """Whether a file is one of these, by its first bytes."""
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def load(files: Sequence[Path], listed: Sequence[str]) -> ParquetImages:
    """The rows of all files, in their order.

    Classes are called as Hugging Face's description of the columns says, else as ``listed``, else
    by their numbers.

    Raises:
        DataError: without pyarrow, or naming a file that is damaged or of another form.
    """
    found = [_File(path) for path in files]
    counts = [len(each.labels) for each in found]
    if not sum(counts):
        raise DataError(f"{files[0]}: has no rows")
    _warn_of_groups(files[0], found)
    labels = np.concatenate([each.labels for each in found])
    return ParquetImages(
        files[0].parent,
        _classes(files[0], labels, found[0].names or tuple(listed)),
        tuple(f"{path}: row {row}" for path, count in zip(files, counts) for row in range(count)),
        labels.astype(np.int32),
        _Groups(files),
        np.array(
            [
                (number, group, row)
                for number, each in enumerate(found)
                for group, rows in enumerate(each.group_rows)
                for row in range(rows)
            ],
            np.int64,
        ),
    )


def _classes(path: Path, labels: np.ndarray, names: Tuple[str, ...]) -> Tuple[str, ...]:
    """``names``, or numbers where there are none.

    Raises:
        DataError: when labels are out of range.
    """
    least, most = int(labels.min()), int(labels.max())
    if least < 0:
        raise DataError(f"{path}: a label is {least}: images without classes are no test")
    if most >= (len(names) or 100_000):
        raise DataError(f"{path}: a label is {most}; expected 0 to {(len(names) or 100_000) - 1}")
    return names or tuple(map(str, range(most + 1)))


def _warn_of_groups(path: Path, files: Sequence["_File"]) -> None:
    """Tell when reading takes far longer than decoding: an image costs its whole row group."""
    sizes = [size for each in files for size in each.group_bytes]
    if max(sizes) > _SLOW_GROUP and sum(sizes) > _MEMORY:
        logger.warning(
            "%s: %d MB have to be read for nearly every image; tools/prepare_data.py makes shards "
            "that are read faster",
            *(path, max(sizes) >> 20),
        )


class _File:
    """Labels, names of classes and row groups of one file.

    Raises:
        DataError: naming the file.
    """

    labels: np.ndarray
    names: Tuple[str, ...]
    group_rows: List[int]
    group_bytes: List[int]

    def __init__(self, path: Path):
        pa = _pyarrow()
        try:
            file = _open(path)
            metadata = file.metadata
            groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
            self.group_rows = [group.num_rows for group in groups]
            self.group_bytes = [group.total_byte_size for group in groups]
            if min(self.group_rows, default=0) < 0 or max(self.group_bytes, default=0) > _MAX_GROUP:
                raise DataError(f"{path}: a row group has more than {_MAX_GROUP:,} bytes")
            schema = file.schema_arrow
            image, label = schema.field(_IMAGE).type, schema.field(_LABEL).type
            if not pa.types.is_integer(label) or not _has_bytes(image):
                raise KeyError
            column = file.read([_LABEL]).column(_LABEL)
            if column.null_count or len(column) != sum(self.group_rows):
                raise DataError(f"{path}: has rows without {_LABEL}")
            self.labels = column.to_numpy().astype(np.int64)
            self.names = _names(schema.metadata or {})
        except KeyError:
            raise DataError(
                f"{path}: expected a column {_IMAGE} with bytes and a column {_LABEL} of numbers"
            ) from None
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {_line(error)}") from None


def _column(path: Path, group: int) -> Any:
    """The files of the images of a row group, as an array of pyarrow's."""
    pa = _pyarrow()
    try:
        table = _open(path).read_row_group(group, [f"{_IMAGE}.bytes"], use_threads=False)
        return table.column(_IMAGE).combine_chunks().field("bytes")
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: row group {group} cannot be read: {_line(error)}") from None


def _has_bytes(kind: Any) -> bool:
    types = _pyarrow().types
    return types.is_struct(kind) and any(
        kind[place].name == "bytes" and types.is_binary(kind[place].type)
        for place in range(kind.num_fields)
    )


def _names(metadata: Dict[bytes, bytes]) -> Tuple[str, ...]:
    """The names of the classes, where Hugging Face's description has them."""
    text = metadata.get(_HUGGING_FACE, b"")
    try:
        names = json.loads(text[:_MAX_DESCRIPTION])["info"]["features"][_LABEL]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ()
    is_list = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    return tuple(names) if is_list and len(set(names)) == len(names) else ()


def _open(path: Path) -> Any:
    from pyarrow import parquet

    return parquet.ParquetFile(str(path))


@lru_cache(maxsize=None)
def _pyarrow() -> Any:
    """pyarrow, unable to run what a file says.

    Before its version 14.0.1 a file may name an extension type whose description is a pickle
    (CVE-2023-47248). Another type takes its place, as in the project's own pyarrow-hotfix.

    Raises:
        DataError: where it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise DataError("Parquet files need pyarrow; pip install 'pyarrow<=11'") from None

    class Refused(pyarrow.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pyarrow.null(), _PICKLED_TYPE)

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

        @classmethod
        def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> Any:
            raise ValueError("it has a column whose type is a pickle, which would run as a program")

    with suppress(KeyError, pyarrow.ArrowException):  # there is none, or no longer
        pyarrow.unregister_extension_type(_PICKLED_TYPE)
    pyarrow.register_extension_type(Refused())
    return pyarrow


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
