"""Files that are written whole or not at all, and equal where their content is."""

import contextlib
import json
import os
from pathlib import Path
from typing import Dict

import numpy as np

from ..errors import UsageError, UserError


def check_target(flag: str, path: Path) -> None:
    """See that a file of this name can be made, before the work whose result it is to hold.

    Raises:
        UsageError: naming ``flag``, when the name is a folder's, a device's or a pipe's, or its
            folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"{flag} {path}: is a folder; give a file's name")
    if path.exists() and not path.is_file():  # a rename would put a file in the device's place
        raise UsageError(f"{flag} {path}: is a device or a pipe; give a file's name")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}; make it first")


def refuse_inside(flag: str, path: Path, data: Path) -> None:
    """See that what is written to ``path`` does not become a part of the data set ``data``.

    Raises:
        UsageError: naming ``flag``, when it lies in the folder ``data``.
    """
    if not data.is_dir():  # an archive or a list
        return
    target = path.resolve()
    linked = [each.resolve() for each in data.iterdir() if each.is_symlink() and each.is_dir()]
    for folder in (data.resolve(), *linked):
        if folder == target or folder in target.parents:
            raise UsageError(
                f"{flag} {path}: lies in the data set {data}, whose folders are classes of images; "
                "choose a place outside of it"
            )


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


def safetensors_bytes(tensors: Dict[str, np.ndarray], metadata: Dict[str, str]) -> bytes:
    """A ``.safetensors`` file of ``tensors``, of any strides.

    Equal content gives equal bytes, so that digests can be compared. The library orders tensors by
    type and name, but metadata at random, anew in every process.
    """
    from safetensors.numpy import save  # inference does without, where weights are of another kind

    data = save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[end:]])
