"""What Keras and flax write: axes are (height, width, in, out) there."""

from typing import Tuple

import numpy as np

from ..contents import StoredTensor
from ..stored_numbers import decoded, stored_dtype


class InOnePiece(StoredTensor):
    """A tensor whose numbers lie in one piece in the file."""

    def __init__(
        self, raw: memoryview, code: str, shape: Tuple[int, ...], order: str = "<"
    ) -> None:
        self._raw, self._code, self._shape, self._order = raw, code, shape, order

    @property
    def shape(self) -> Tuple[int, ...]:
        return self._shape

    @property
    def nbytes(self) -> int:
        return len(self._raw)

    def to_numpy(self) -> np.ndarray:
        array = np.frombuffer(self._raw, stored_dtype(self._code, self._order))
        return decoded(array.reshape(self._shape), self._code)
