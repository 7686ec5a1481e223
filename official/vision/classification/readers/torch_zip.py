"""Reads what ``torch.save`` writes since PyTorch 1.6.

The layout (PyTorch 2, ``torch/serialization.py``, ``_save``): a zip archive with a folder of any
name. In it are "data.pkl", the pickled value; "data/0", "data/1" and so on, the storages' bytes,
stored as they are; and "byteorder", the machine's, which older versions do not write.
"""

import functools
from typing import Dict

from ..errors import WeightsError
from .contents import Contents, Fault
from .lenient_pickle import load_leniently
from .pickle_data import PickleDataError, shown
from .torch_pickle import NAMES, Storage, checked_storage
from .zip_archive import Archive, ArchiveError

_ORDERS = {b"little": "<", b"big": ">"}
# By a member's name: what else is a zip archive.
_OTHERS = {
    ".weights.h5": ("a network of Keras", "Save it anew in Keras with model.save('name.keras')"),
    ".npy": (
        "an archive of NumPy (.npz)",
        "Write its arrays with safetensors.numpy.save_file(dict(numpy.load(path)), new_path)",
    ),
    "saved_model.pb": ("a SavedModel of TensorFlow", "Save the weights in Keras as .weights.h5"),
    "/archive_format": (
        "a program of torch.export (.pt2)",
        "Save its weights with torch.save(torch.export.load(path).state_dict, new_path)",
    ),
}
MAX_KEY_DIGITS = 20  # PyTorch 1.6 used addresses, later versions count


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a zip archive."""
    return head.startswith(b"PK\x03\x04")


def read(data: bytes, path: str) -> Contents:
    """What the pickle in the archive holds."""
    refuse = functools.partial(refusal, path, "a PyTorch weight file")
    try:
        archive = Archive(data)
        return Contents(_Reader(archive, _root(archive)).read(), refuse, len(data))
    except Fault as fault:
        raise refuse(fault) from fault


def refusal(path: str, kind: str, fault: Fault) -> WeightsError:
    """What to tell of a PyTorch file, and the way out. Here and in ``torch_legacy``."""
    again = "In PyTorch, " if fault.intact else "Download it again, or "
    if fault.way_out:
        return WeightsError(f"{path}: cannot be read as {kind}: {fault}. {fault.way_out}.")
    return WeightsError(
        f"{path}: cannot be read as {kind}: {fault}. "
        f"{again}save its state dict alone with torch.save(model.state_dict(), path)."
    )


def _root(archive: Archive) -> str:
    """The folder's name."""
    names = archive.names
    roots = [name.split("/")[0] for name in names if name.split("/")[1:] == ["data.pkl"]]
    if not roots:
        for end, (found, way_out) in _OTHERS.items():
            if any(name.endswith(end) for name in names):
                fault = f"it is {found}, a zip archive without a data.pkl"
                raise ArchiveError(fault, way_out=way_out)
        first = f"its first member is {shown(names[0])}" if names else "it is empty"
        raise ArchiveError(f"it is a zip archive without a data.pkl; {first}")
    if len(roots) > 1:
        raise ArchiveError("it is a zip archive with more than one data.pkl")
    if f"{roots[0]}/constants.pkl" in names or f"{roots[0]}/model.json" in names:
        raise ArchiveError(
            "it is a TorchScript archive, a program; expected a state dict", intact=True
        )
    return roots[0]


class _Reader:
    def __init__(self, archive: Archive, root: str) -> None:
        self._archive = archive
        self._root = root
        self._order = self._byte_order()
        self._storages: Dict[str, Storage] = {}

    def read(self) -> object:
        pickled = self._archive.read(f"{self._root}/data.pkl")
        value, end = load_leniently(pickled, NAMES, self._storage)
        if end != len(pickled):
            raise PickleDataError(f"{len(pickled) - end:,} bytes follow the end of data.pkl")
        return value

    def _byte_order(self) -> str:
        name = f"{self._root}/byteorder"
        if name not in self._archive.names:
            return "<"
        order = _ORDERS.get(bytes(self._archive.read(name)))
        if order is None:
            raise ArchiveError("its byteorder is neither little nor big")
        return order

    def _storage(self, identifier: object) -> Storage:
        """``("storage", type, key, location, count)``."""
        if not isinstance(identifier, tuple) or len(identifier) != 5:
            raise PickleDataError("a persistent id is not as PyTorch writes it")
        tag, kind, key, _, count = identifier
        if tag != "storage" or not isinstance(key, str):
            raise PickleDataError("a persistent id is not as PyTorch writes it")
        # The key becomes part of a member's name: digits, and nothing that leads elsewhere.
        if not (key.isascii() and key.isdigit() and len(key) <= MAX_KEY_DIGITS):
            raise PickleDataError(f"a storage's key is {shown(key)}; expected digits")
        storage = checked_storage(kind, count)
        known = self._storages.setdefault(key, storage)
        if known is storage:
            self._fill(storage, f"{self._root}/data/{key}")
        elif (known.kind, known.count) != (storage.kind, storage.count):
            raise PickleDataError(f"storage {key} is described in two ways")
        return known

    def _fill(self, storage: Storage, member: str) -> None:
        needed, found = storage.count * storage.kind.bytes, self._archive.size(member)
        if needed != found:
            raise PickleDataError(f"{shown(member)} should have {needed:,} bytes and has {found:,}")
        storage.data, storage.order = self._archive.read(member), self._order
