"""Where predictions go: lines or JSON on the console, and files. None is held in memory whole."""

import contextlib
import csv
import io
import json
import logging
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Protocol, Sequence

import cv2
import numpy as np

from ..engine.console import Console
from ..engine.files import check_target
from ..engine.scoring import ClassScore
from ..engine.skipping import SHOWN
from ..errors import UsageError, UserError
from ..text import in_cells, no_formula, printable, seven_digits
from .images import ImageFile, PreparedImage

logger = logging.getLogger(__name__)

_PICTURES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Prediction:
    """The top classes of an image, best first.

    Args:
        top: of the image as it is.
        tta: of the mean of the image's and its mirror image's probabilities; None where that is
            not asked for.
        feature: ``(K,)``, pooled; None likewise.
        heat: ``(h, w)`` each, Grad-CAM of the first two classes; None likewise.
    """

    image: PreparedImage
    top: List[ClassScore]
    tta: Optional[List[ClassScore]] = None
    feature: Optional[np.ndarray] = None
    heat: Optional[List[np.ndarray]] = None

    def to_dict(self) -> Dict[str, Any]:
        """For JSON."""
        row = {"image": self.image.file.path, "top": [score.to_dict() for score in self.top]}
        if self.tta is not None:
            row["tta"] = [score.to_dict() for score in self.tta]
        return row


def describe(rank: int, score: ClassScore) -> str:
    """MegEngine/Models' line."""
    percent = 100 * score.probability
    return f"{rank}: class = {in_cells(score.name, 20)} with probability = {percent:4.1f} %"


class Sink(Protocol):
    """Where predictions go, in the images' order."""

    def add(self, prediction: Prediction) -> None:
        """Write the next image's."""

    def close(self) -> None:
        """There are no more images."""

    def abandon(self) -> None:
        """There are more images, but an error or the user has stopped the run."""


class Lines:
    """One line per class on the console, below the image's name where there are several."""

    def __init__(self, console: Console, single: bool):
        self.console = console
        self.single = single

    def add(self, prediction: Prediction) -> None:
        """Print the lines of the next image."""
        if not self.single:
            self.console.line(f"{printable(prediction.image.file.path)}:")
        self._lines(prediction.top)
        if prediction.tta is not None:
            self.console.line("mean with the mirrored image:")
            self._lines(prediction.tta)

    def close(self) -> None:
        """All lines are there."""

    abandon = close

    def _lines(self, top: List[ClassScore]) -> None:
        for rank, score in enumerate(top):
            self.console.line(describe(rank, score))


class JsonOnConsole:
    """One object on the console, or a list of them where there are several images.

    Args:
        skipped: what is wrong with images that may be left out; the list then is ``images`` in an
            object that has ``skipped`` too. None where that is not so.
    """

    def __init__(self, console: Console, single: bool, skipped: Optional[List[str]] = None):
        self.console = console
        self.single = single
        self.skipped = None if single else skipped
        self._before = "[" if self.skipped is None else '{"images": ['
        self._held: Optional[str] = None  # what follows it is not known yet: a comma, or the end

    def add(self, prediction: Prediction) -> None:
        """Print the object of the next image."""
        text = json.dumps(prediction.to_dict())
        if self.single:
            self.console.line(text)
            return
        if self._held is not None:
            self.console.line(f"{self._before}{self._held},")
            self._before = ""
        self._held = text

    def abandon(self) -> None:
        """The list stays open: half a list is not to be taken for one."""

    def close(self) -> None:
        """Print the end of the list."""
        if not self.single:
            end = "]"
            if self.skipped is not None:
                first = self.skipped[:SHOWN]
                end = f'], "skipped": {json.dumps({"count": len(self.skipped), "first": first})}}}'
            self.console.line(f"{self._before}{self._held or ''}{end}")


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
        with contextlib.suppress(OSError):  # as when the disk is full, which has been said
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
        """The image's path and its classes."""
        cells: List[Any] = [no_formula(prediction.image.file.path)]
        for score in (*prediction.top, *(prediction.tta or ())):
            cells += (no_formula(score.name), score.index, seven_digits(score.probability))
        return self._line(cells)

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
