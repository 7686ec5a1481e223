"""What a weight file holds, before any tensor of it is made.

Every reader returns ``Contents``: plain data such as dicts, lists, text and numbers, with a
``StoredTensor`` wherever the file has one. Whoever knows which of them are wanted has those made,
and what is left costs nothing.
"""

from dataclasses import dataclass, field
from typing import Callable, Dict, Hashable, Mapping, Tuple

import numpy as np

from ..errors import WeightsError


class Fault(Exception):
    """What keeps a file, or a part of it, from being read. Says what and where.

    Args:
        intact: the file is not damaged but of another kind, so that another copy would not help.
        way_out: what to do about it, where that is not what the format's reader says.
    """

    def __init__(self, message: str, intact: bool = False, way_out: str = "") -> None:
        super().__init__(message)
        self.intact = intact or bool(way_out)
        self.way_out = way_out


class StoredTensor:
    """A tensor that is known to be in the file, whole, and is not made yet."""

    @property
    def shape(self) -> Tuple[int, ...]:
        raise NotImplementedError

    @property
    def nbytes(self) -> int:
        """Bytes that it takes as the file has it."""
        raise NotImplementedError

    @property
    def place(self) -> Hashable:
        """What two tensors over the same numbers have in common."""
        return id(self)

    def to_numpy(self) -> np.ndarray:
        """The numbers, native-endian, C-contiguous and aligned; without a copy where it can be.

        Raises:
            Fault: if they are not as the file says.
        """
        raise NotImplementedError


class View(StoredTensor):
    """A tensor whose numbers are at hand."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @property
    def shape(self) -> Tuple[int, ...]:
        return self.array.shape

    @property
    def nbytes(self) -> int:
        return self.array.nbytes

    def to_numpy(self) -> np.ndarray:
        return self.array


class Transposed(StoredTensor):
    """A tensor with its axes in another order."""

    def __init__(self, tensor: StoredTensor, axes: Tuple[int, ...]) -> None:
        self._tensor, self._axes = tensor, axes

    @property
    def shape(self) -> Tuple[int, ...]:
        return tuple(self._tensor.shape[axis] for axis in self._axes)

    @property
    def nbytes(self) -> int:
        return self._tensor.nbytes

    @property
    def place(self) -> Hashable:
        return (self._tensor.place, self._axes)

    def to_numpy(self) -> np.ndarray:
        return np.ascontiguousarray(self._tensor.to_numpy().transpose(self._axes))


@dataclass(frozen=True)
class Contents:
    """What a weight file holds.

    Args:
        value: the whole, mostly a dict.
        metadata: text that the format has beside it.
        refuse: makes the error for a fault, with the way out that this format has.
        size: of the file in bytes.
    """

    value: object
    refuse: Callable[[Fault], WeightsError]
    size: int
    metadata: Dict[str, str] = field(default_factory=dict)
    format: str = ""

    def arrays(self, tensors: Mapping[str, StoredTensor]) -> Dict[str, np.ndarray]:
        """These tensors as arrays, floats as float32, all read-only; those at one place share one.

        Raises:
            WeightsError: if they would take more than the file, or one is not as the file says.
        """
        unique = {tensor.place: tensor for tensor in tensors.values()}
        try:
            # The same bytes can be shown again and again, so that a small file could fill the
            # memory. The tensors of an honest network take no more than their file.
            total = sum(tensor.nbytes for tensor in unique.values())
            if total > self.size:
                raise Fault(f"its tensors take {total:,} bytes and the file has {self.size:,}")
            made = {place: _finished(tensor.to_numpy()) for place, tensor in unique.items()}
        except Fault as fault:
            raise self.refuse(fault) from fault
        except ValueError as error:  # an empty array of sizes that float32 cannot have
            raise self.refuse(Fault(f"a tensor cannot be had: {error}")) from error
        return {name: made[tensor.place] for name, tensor in tensors.items()}


def _finished(array: np.ndarray) -> np.ndarray:
    """Floats as float32, and read-only, since two names may share one array."""
    if array.dtype.kind == "f" and array.dtype != np.float32:
        with np.errstate(over="ignore"):
            single = array.astype(np.float32)
        if array.dtype.itemsize == 8 and not np.array_equal(
            np.isfinite(single), np.isfinite(array)
        ):
            raise Fault("holds float64 values that do not fit in float32", intact=True)
        array = single
    array.setflags(write=False)
    return array
