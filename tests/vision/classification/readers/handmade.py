"""Weight files put together by hand, byte for byte, for what no framework writes."""

import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, Sequence, Tuple

import numpy as np

from official.vision.classification.readers import state_dict

POSIX = os.mkdir.__module__  # os.system's too, which tests replace
FILES = Path(__file__).resolve().parent / "files"

MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
VERSION = b"\x80\x02M\xe9\x03."
V2 = b"ctorch._utils\n_rebuild_tensor_v2\n"
HOOKS = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def numbers(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage", tail: bytes = b"") -> bytes:
    """A persistent id; in legacy files ``tail`` is the view, which is mostly None."""
    head = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text(key) + text("cpu")
    return b"(" + head + number(count) + tail + b"tQ"


def tensor(
    where: bytes, size: Sequence[int], stride: Sequence[int] = (1,), offset: int = 0
) -> bytes:
    return (
        V2
        + b"("
        + where
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b"\x89"
        + (HOOKS + b"tR")
    )


def pickled(entries: Mapping[str, bytes]) -> bytes:
    """A pickled dict of instructions."""
    body = b"".join(text(name) + entry for name, entry in entries.items())
    return b"\x80\x02}(" + body + b"u."


def torch_zip(
    data_pkl: bytes, storages: Mapping[str, bytes], root: str = "archive", **members: bytes
) -> bytes:
    made = {"data.pkl": data_pkl, **members}
    made.update({f"data/{key}": raw for key, raw in storages.items()})
    return stored({f"{root}/{name}": raw for name, raw in made.items()})


def stored(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, raw in members.items():
            archive.writestr(name, raw)
    return file.getvalue()


def torch_legacy(
    value: bytes, storages: Mapping[str, Tuple[int, bytes]], keys: bytes = b""
) -> bytes:
    keys = keys or b"\x80\x02](" + b"".join(text(key) for key in storages) + b"e."
    rows = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return MAGIC + VERSION + b"\x80\x02}." + value + keys + rows


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(index: int, raw: bytes) -> bytes:
    """A field of Protocol Buffers that has a length."""
    return varint(index << 3 | 2) + varint(len(raw)) + raw


def value(name: str, kind: str, dims: Sequence[int], content: bytes) -> bytes:
    """One ``Value`` of a MindSpore checkpoint."""
    sizes = b"".join(b"\x08" + varint(size % 2**64) for size in dims)
    proto = sizes + field(2, kind.encode()) + field(3, content)
    return field(1, field(1, name.encode()) + field(2, proto))


def with_crc(message: bytes) -> bytes:
    return message + b"crc_num" + zlib.crc32(message).to_bytes(10, "big")


def names_and_arrays(found: Mapping[str, object]) -> Dict[str, Tuple]:
    return {name: (array.dtype.str, array.tolist()) for name, array in found.items()}


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """What Python and numpy allocate within stays below ``limit`` bytes."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak:,} bytes"


def shell_command(marker: Path) -> bytes:
    """Instructions that run a command when ``pickle`` follows them."""
    return b"c" + POSIX.encode() + b"\nsystem\n" + text(f"touch {marker}") + b"\x85R"


def reading(module: Any) -> Callable[[bytes, str], Tuple[Dict[str, np.ndarray], Dict[str, str]]]:
    """The state dict of a file's bytes, and its metadata, as one reader has them: numbers keep
    their type, as they do not in ``read_weights``."""

    def read(data: bytes, path: str) -> Tuple[Dict[str, np.ndarray], Dict[str, str]]:
        contents = module.read(data, path)
        stored = state_dict(contents)
        contents.arrays(stored)  # raises what is wrong
        made = {tensor.place: tensor.to_numpy() for tensor in stored.values()}
        return {name: made[tensor.place] for name, tensor in stored.items()}, contents.metadata

    return read
