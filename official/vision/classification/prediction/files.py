"""Files of predictions: rows as CSV or JSON, features, pictures. None is held in memory whole."""

import contextlib
import csv
import io
import json
import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence

import cv2
import numpy as np

from ..engine.files import check_target
from ..errors import UsageError, UserError
from .answers import Prediction
from .sources import ImageFile

logger = logging.getLogger(__name__)

_PICTURES = (".png", ".jpg", ".jpeg")


class _RowsFile:
    """Rows that go to a file of another name, which gets the right one when all are there."""

    flag = ""

    def __init__(self, path: Path):
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._count = 0
        with _writing(self.flag, path):
            # Names of files need not be UTF-8; their bytes are kept.
            self._file = self._part.open(
                "w", encoding="utf-8", errors="surrogateescape", newline=""
            )

    def add(self, prediction: Prediction) -> None:
        """Write the next image's row."""
        with _writing(self.flag, self.path):
            self._file.write(self.row(prediction))
        self._count += 1

    def row(self, prediction: Prediction) -> str:
        """What is written of an image."""
        raise NotImplementedError

    def close(self) -> None:
        """The rows are complete."""
        with _writing(self.flag, self.path):
            self._file.close()
            self._part.replace(self.path)

    def abandon(self) -> None:
        """There will be no more rows, though some are missing; those that are there are kept."""
        with contextlib.suppress(OSError):  # as when the disk is full, which has been told
            self._file.close()
        if self._count:
            logger.warning("%s %s: the rows so far are in %s", self.flag, self.path, self._part)
        else:
            self._part.unlink(missing_ok=True)


class CsvFile(_RowsFile):
    """``--csv``: a header, and a row per image: its path, then class, index and probability.

    Args:
        top_k: how many classes a row has.
        tta: whether those of the mean with the mirrored image come after them.
    """

    flag = "--csv"

    def __init__(self, path: Path, top_k: int, tta: bool):
        super().__init__(path)
        fields = [
            f"{name}_{k}" for k in range(1, top_k + 1) for name in ("class", "index", "probability")
        ]
        header = ["image", *fields, *(f"tta_{field}" for field in fields if tta)]
        with _writing(self.flag, path):
            self._file.write(self._line(header))

    def row(self, prediction: Prediction) -> str:
        """The image's path and its guesses."""
        guesses = [*prediction.top, *(prediction.tta or ())]
        values = [(guess.name, guess.index, guess.probability) for guess in guesses]
        return self._line([prediction.image.file.path, *(v for row in values for v in row)])

    @staticmethod
    def _line(row: List[Any]) -> str:
        text = io.StringIO(newline="")
        csv.writer(text).writerow(row)
        return text.getvalue()


class JsonLinesFile(_RowsFile):
    """``--jsonl``: an object per line, those that ``--json`` prints."""

    flag = "--jsonl"

    def row(self, prediction: Prediction) -> str:
        """The image's object."""
        return json.dumps(prediction.to_dict()) + "\n"


class FeaturesFile:
    """``--features``: an .npz with ``features``, (N, K) float32, and ``images``, their N paths.

    The features wait in a nameless file until it is known how many there are, which the header of
    the .npz says.
    """

    flag = "--features"

    def __init__(self, path: Path):
        self.path = path
        self._part = path.with_name(path.name + ".part")
        self._images: List[str] = []
        self._length = 0
        with _writing(self.flag, path):
            self._rows = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115

    def add(self, prediction: Prediction) -> None:
        """Note the next image's feature."""
        row = np.ascontiguousarray(prediction.feature, np.dtype("<f4"))
        self._length = len(row)
        self._images.append(prediction.image.file.path)
        with _writing(self.flag, self.path):
            self._rows.write(row.tobytes())

    def close(self) -> None:
        """Write the file."""
        with _writing(self.flag, self.path), self._rows:
            with zipfile.ZipFile(self._part, "w") as archive:
                with archive.open("features.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, self._header())
                    self._rows.seek(0)
                    for block in iter(lambda: self._rows.read(1 << 20), b""):
                        member.write(block)
                with archive.open("images.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.array(self._images, np.str_))
            self._part.replace(self.path)

    def abandon(self) -> None:
        """There will be no file."""
        with contextlib.suppress(OSError):
            self._rows.close()
            self._part.unlink()

    def _header(self) -> Dict[str, Any]:
        shape = (len(self._images), self._length)
        return {"descr": "<f4", "fortran_order": False, "shape": shape}


class Pictures:
    """Files of what ``draw`` makes of a prediction.

    Args:
        flag: the one that asks for them.
        targets: a path per image, from ``picture_targets``.
    """

    def __init__(
        self, flag: str, targets: Sequence[Path], draw: Callable[[Prediction], np.ndarray]
    ):
        self.flag = flag
        self.targets = targets
        self.draw = draw

    def add(self, prediction: Prediction) -> None:
        """Write the next image's picture."""
        path = self.targets[prediction.image.number]
        _, data = cv2.imencode(path.suffix.lower(), self.draw(prediction))
        with _writing(self.flag, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data.tobytes())

    def close(self) -> None:
        """All pictures are there."""

    def abandon(self) -> None:
        """Those that are there stay."""


def picture_targets(flag: str, where: str, images: Sequence[ImageFile], single: bool) -> List[Path]:
    """Where each image's picture goes: to the file ``where``, or into it where it is a folder.

    Raises:
        UsageError: naming ``flag``, when that is not possible.
    """
    path = Path(where)
    if single:
        if path.suffix.lower() not in _PICTURES:
            raise UsageError(f"{flag} {where}: the name must end in .png or .jpg")
        check_target(flag, path)
        return [path]
    if path.suffix.lower() in _PICTURES or (path.exists() and not path.is_dir()):
        raise UsageError(f"{flag} {where}: there are several images; give a folder's name")
    check_target(flag, path / "picture.png" if path.exists() else path)
    return [path / name for name in _unique_names(images)]


def spare_images(targets: Dict[str, List[Path]], images: Sequence[ImageFile]) -> None:
    """See that none of the files that flags ask for is one of the images.

    Raises:
        UsageError: naming the flag and the file.
    """
    own = {os.path.realpath(image.path) for image in images} if targets else set()
    for flag, paths in targets.items():
        for path in paths:
            if os.path.realpath(path) in own:
                raise UsageError(
                    f"{flag} {path}: is one of the images to be named and would be overwritten; "
                    "give another name"
                )


def _unique_names(images: Sequence[ImageFile]) -> List[str]:
    """The images' names, as .jpg where they are and .png otherwise; x-2.png for the second x."""
    names: List[str] = []
    used: Dict[str, int] = {}
    for image in images:
        stem, suffix = os.path.splitext(image.name)  # noqa: PTH122, which keeps the folders
        suffix = ".jpg" if suffix.lower() in (".jpg", ".jpeg") else ".png"
        name = stem + suffix
        while name in used:
            used[stem + suffix] += 1
            name = f"{stem}-{used[stem + suffix]}{suffix}"
        used[name] = 1
        names.append(name)
    return names


@contextlib.contextmanager
def _writing(flag: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{flag} {path}: cannot be written: {reason}") from None
