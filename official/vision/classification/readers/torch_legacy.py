"""Reads what ``torch.save`` wrote before PyTorch 1.6, and still does on request.

The layout (PyTorch 2, ``torch/serialization.py``, ``_legacy_save``): five pickles in a row, which
are a magic number, the version 1001, a description of the machine, the value, and the list of its
storages' keys; then, in the order of that list, each storage's count as eight bytes and its
numbers. These are little-endian whatever the machine was.
"""

import functools
from typing import Dict

from .contents import Contents
from .lenient_pickle import load_leniently
from .pickle_data import PickleDataError, load
from .torch_pickle import NAMES, Storage, checked_storage
from .torch_zip import refusal

# 0x1950a86a20f9469cfc6c as a LONG1 and the end of its pickle. It follows the protocol's two bytes
# and, from protocol 4 on, the nine of a frame.
_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
_MAGIC_AT = (2, 11)
_VERSION = 1001


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` starts with the magic number, pickled."""
    return head[:1] == b"\x80" and any(head.startswith(_MAGIC, at) for at in _MAGIC_AT)


def read(data: bytes, path: str) -> Contents:
    """What the file's fourth pickle holds."""
    refuse = functools.partial(refusal, path, "a PyTorch weight file (legacy format)")
    try:
        return Contents(_read(data), refuse, len(data))
    except PickleDataError as error:
        raise refuse(error) from error


class _Storages:
    """The storages by key, as persistent ids mention them."""

    def __init__(self) -> None:
        self.roots: Dict[str, Storage] = {}
        self._views: Dict[str, Storage] = {}

    def load(self, identifier: object) -> Storage:
        """``("storage", type, key, location, count, view)``."""
        if isinstance(identifier, tuple) and identifier[:1] == ("module",):
            raise PickleDataError("it holds a network's source code; expected a state dict")
        if not isinstance(identifier, tuple) or len(identifier) != 6:
            raise PickleDataError("a persistent id is not as PyTorch writes it")
        kind, key, _, count, view = identifier[1:]
        if identifier[0] != "storage" or not isinstance(key, str):
            raise PickleDataError("a persistent id is not as PyTorch writes it")
        storage = checked_storage(kind, count)
        known = self.roots.setdefault(key, storage)
        if (known.kind, known.count) != (storage.kind, storage.count):
            raise PickleDataError("a storage is described in two ways")
        return known if view is None else self._view(known, view)

    def _view(self, root: Storage, view: object) -> Storage:
        """``(key, offset, count)``: a stretch of ``root``."""
        if not isinstance(view, tuple) or len(view) != 3 or not isinstance(view[0], str):
            raise PickleDataError("a storage's view is not as PyTorch writes it")
        key, start, count = view
        storage = checked_storage(root.kind, count)
        if type(start) is not int or not 0 <= start <= root.count - count:
            raise PickleDataError("a storage's view reaches past its end")
        storage.root, storage.start = root, start
        known = self._views.setdefault(key, storage)
        if (known.root, known.start, known.count) != (root, start, count):
            raise PickleDataError("a storage's view is described in two ways")
        return known


def _read(data: bytes) -> object:
    version, at = load(data, {}, start=data.index(_MAGIC) + len(_MAGIC))
    if version != _VERSION:
        raise PickleDataError(f"its version is not {_VERSION}")
    _, at = load(data, {}, start=at)
    storages = _Storages()
    value, at = load_leniently(data, NAMES, storages.load, start=at)
    keys, at = load(data, {}, start=at)
    _attach(data, at, keys, storages.roots)
    return value


def _attach(data: bytes, at: int, keys: object, storages: Dict[str, Storage]) -> None:
    """Give each storage its bytes, which start at ``at`` and reach to the end of the file."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise PickleDataError("the list of its storages is no list of keys")
    if len(keys) != len(storages) or set(keys) != set(storages):
        raise PickleDataError("the list of its storages is not that of its tensors")
    view = memoryview(data)
    for key in keys:
        storage = storages[key]
        if int.from_bytes(view[at : at + 8], "little") != storage.count:
            raise PickleDataError("a storage is cut off, or described in two ways")
        begin, at = at + 8, at + 8 + storage.count * storage.kind.bytes
        if at > len(view):
            raise PickleDataError(
                f"a storage needs {at - begin:,} bytes and {len(view) - begin:,} are left"
            )
        storage.data = view[begin:at]
    if at != len(view):
        raise PickleDataError(f"{len(view) - at:,} bytes follow its end")
