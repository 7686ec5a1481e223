"""Reads ``.keras`` files: a zip archive with "metadata.json", "config.json" and "model.weights.h5".

The configuration describes the network and may name code; it is not looked at.
"""

import functools

from ...errors import WeightsError
from ..contents import Contents, Fault
from ..zip_archive import Archive
from . import hdf5_file

_FIRST = b"metadata.json"
_WEIGHTS = "model.weights.h5"
_LOCAL_HEADER_BYTES = 30


def matches(head: bytes) -> bool:
    """Whether a file that starts with ``head`` is a zip archive whose first member is Keras's."""
    return head.startswith(b"PK\x03\x04") and head[_LOCAL_HEADER_BYTES:].startswith(_FIRST)


def read(data: bytes, path: str) -> Contents:
    """What the weights' member holds."""
    try:
        weights = Archive(data).read(_WEIGHTS)
        if not hdf5_file.matches(bytes(weights[:8])):
            raise Fault(f"its member {_WEIGHTS} is no HDF5 file")
    except Fault as fault:
        raise functools.partial(_refusal, path)(fault) from fault
    return hdf5_file.contents(weights, path, len(data))


def _refusal(path: str, fault: Fault) -> WeightsError:
    return WeightsError(
        f"{path}: cannot be read as a .keras file: {fault}. Download it again, or save its "
        "weights alone in Keras with model.save_weights('name.weights.h5')."
    )
