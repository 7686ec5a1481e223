"""The C++ of this folder's ``native/``, compiled at the first use, once for each machine."""

import ctypes
from functools import lru_cache
from pathlib import Path

from official.private_folder import why_not_private

from ..ops.build import KernelsUnavailable, compiled

_SOURCES = Path(__file__).parent / "native"
# Sums and products are rounded one by one, as Python's and Pillow's are.
_FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-fPIC", "-shared", "-ldl")
_TOLD = "the reader and resizer of images for this machine, once; it takes some seconds"


@lru_cache(maxsize=None)
def native_library() -> ctypes.CDLL:
    """The functions for JPEG files and for resizing.

    Raises:
        KernelsUnavailable: without a compiler, or where the compiled file is not what it was.
    """
    path = compiled("images", _TOLD, _SOURCES, _FLAGS)
    problem = why_not_private(str(path))
    if problem:
        raise KernelsUnavailable(f"{problem}; delete {path}")
    try:
        library = ctypes.CDLL(str(path))
        library.jpeg_open, library.jpeg_part, library.random_crop, library.resample  # noqa: B018
        return library
    except (OSError, AttributeError) as error:
        raise KernelsUnavailable(f"{path}: {error}") from None
