"""Reads weight files from outside, which are hostile until proven otherwise.

``read_weights`` looks at a file's first bytes, never at its suffix, and hands it to the reader of
that format. No reader runs code from a file, and all of them raise only ``WeightsError``.

A reader is a module with ``matches(head)``, which says whether a file that starts with these bytes
is its own, and ``read(data, path)``, which returns ``Contents``. A new format is a new module and a
line in ``_READERS``.
"""

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Dict, Optional, Union

import numpy as np

from ..errors import WeightsError
from . import megengine_pickle, mindspore_ckpt, safetensors_file, torch_legacy, torch_zip
from .contents import Contents, Fault, StoredTensor
from .foreign import Foreign
from .keras_flax import hdf5_file, keras_zip, msgpack_file
from .kinds import kind_of
from .pickle_data import shown as shown_name

MAX_BYTES = 4 << 30  # eight times Wide ResNet-101-2, the largest network here
HEAD_BYTES = 512

# In this order: a legacy PyTorch file is a row of pickles, and a .keras a zip archive.
_READERS = {
    "safetensors": safetensors_file,
    "keras": keras_zip,
    "torch-zip": torch_zip,
    "torch-legacy": torch_legacy,
    "megengine-pickle": megengine_pickle,
    "mindspore": mindspore_ckpt,
    "hdf5": hdf5_file,
    "msgpack": msgpack_file,
}

# Where the state dict lies when it is not the value itself, the first that is there: as
# MMPreTrain and timm write it, torchvision, PyTorch's tutorials, and timm's moving average.
STATE_DICT_ENTRIES = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")

_EXPECTED = "expected a weight file of MegEngine, PyTorch, MindSpore, Keras, flax or safetensors"


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds. The arrays are read-only; floats are float32."""

    tensors: Dict[str, np.ndarray]
    metadata: Dict[str, str]
    format: str


def open_weights(path: Union[str, Path]) -> Contents:
    """What a weight file of any known format holds, before any tensor is made.

    Raises:
        WeightsError: naming the file, what it is, what was expected and the way out.
    """
    shown = str(path)
    data = _read_bytes(Path(path), shown)
    name = _format_of(data[:HEAD_BYTES], shown)
    return replace(_READERS[name].read(data, shown), format=name)


def read_weights(path: Union[str, Path]) -> WeightFile:
    """Read a file that holds a state dict, alone or as one of ``STATE_DICT_ENTRIES``.

    Raises:
        WeightsError: naming the file, what it is, what was expected and the way out.
    """
    contents = open_weights(path)
    tensors = contents.arrays(state_dict(contents))
    if not tensors:
        raise WeightsError(f"{path}: holds no tensors. Check that it is the right file.")
    return WeightFile(tensors, contents.metadata, contents.format)


def state_dict(contents: Contents) -> Dict[str, StoredTensor]:
    """The state dict: the first of ``STATE_DICT_ENTRIES`` that is a dict, or the whole value.

    Raises:
        WeightsError: naming an entry that is no tensor.
    """
    value = contents.value
    whole = _whole_network(value)
    if whole:
        fault = f"{whole.fault}, but a whole network, which only its own code can read"
        raise contents.refuse(Fault(fault, intact=True))
    if isinstance(value, dict):
        entries = [value.get(name) for name in STATE_DICT_ENTRIES]
        value = next((entry for entry in entries if isinstance(entry, dict)), value)
    if not isinstance(value, dict):
        raise contents.refuse(
            Fault(f"it holds a value {_kind(value)}; expected a state dict", True)
        )
    for name, entry in value.items():
        if not isinstance(name, str) or not isinstance(entry, StoredTensor):
            fault = f"its entry {shown_name(str(name))} is {_kind(entry)}; expected a tensor"
            raise contents.refuse(Fault(fault, intact=not getattr(entry, "damaged", False)))
    return value


def _whole_network(value: object) -> Optional[Foreign]:
    """A network that was pickled with its class, if that is what a file has for weights."""
    values = [value, *value.values()] if isinstance(value, dict) else [value]
    for entry in values:
        if isinstance(entry, Foreign) and entry.state and "_modules" in entry.state:
            return entry
    return None


def _kind(value: object) -> str:
    """What a value is that is no tensor."""
    if isinstance(value, Foreign):
        return f"no plain value ({value.fault})"
    return f"of type {type(value).__name__}"


def _read_bytes(path: Path, shown: str) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            if (path / ".metadata").exists():
                raise WeightsError(
                    f"{shown}: is a folder of torch.distributed.checkpoint; {_EXPECTED}. Make one: "
                    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE."
                )
            raise WeightsError(f"{shown}: is a folder; {_EXPECTED}. Name a file in it.")
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device may never end
            raise WeightsError(f"{shown}: is no regular file; {_EXPECTED}.")
        if status.st_size == 0:
            raise WeightsError(f"{shown}: is empty; {_EXPECTED}. Download it again.")
        if status.st_size > MAX_BYTES:
            raise WeightsError(
                f"{shown}: has {status.st_size:,} bytes; weight files have at most {MAX_BYTES:,}. "
                "Check that it is the right file."
            )
        with path.open("rb") as file:
            data = file.read(status.st_size)
    except FileNotFoundError:
        raise WeightsError(f"{shown}: no such file. Check the path.") from None
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error) or "not enough memory"
        raise WeightsError(f"{shown}: cannot be opened: {reason}.") from error
    if len(data) != status.st_size:
        raise WeightsError(f"{shown}: changed while it was read. Wait until it is complete.")
    return data


def _format_of(head: bytes, shown: str) -> str:
    for name, reader in _READERS.items():
        if reader.matches(head):
            return name
    if head.startswith(mindspore_ckpt.ENCRYPTED):
        found, way_out = "an encrypted MindSpore file", "Save it anew without a key"
    else:
        found, way_out = kind_of(head)
    raise WeightsError(f"{shown}: is {found}; {_EXPECTED}. {way_out}.")
