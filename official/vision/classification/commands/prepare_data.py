"""Pack a data set of any kind into WebDataset's shards, from which training reads in place.

as it is                    python tools/prepare_data.py /data/imagenet packed
smaller, and faster to read python tools/prepare_data.py /data/imagenet packed256 --size 256
train on it                 python train.py --data packed256

Each image keeps its place, so training visits the images as it would those of the source. A shard is
written whole or not at all: the same command goes on where it was interrupted. manifest.json has the
number of images, the bytes and the sha256 of each shard; classes.txt names the classes.
"""  # noqa: E501

import argparse
import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from ..data.dataset import ImageDataset
from ..data.image import EXTENSIONS, decode_image
from ..data.splits import parts_of
from ..engine import flags
from ..engine.console import SplitBar
from ..engine.files import refuse_inside, write_atomically
from ..errors import DataError, UserError
from ..readers.text_file import open_regular
from ..text import printable

MANIFEST, CLASSES = "manifest.json", "classes.txt"
FORMAT = "WebDataset shards, 1"
_MAX_MANIFEST = 1 << 28  # bytes; a shard has some 200
_SHARD = {"name": str, "images": int, "as_they_were": int, "bytes": int, "sha256": str}
_CHUNK = 64  # images in memory at a time, for each thread's convenience

Progress = Callable[[str, int, int], None]

# Images whose files stay as they are, by their first bytes.
_SUFFIXES = ((b"\xff\xd8", "jpg"), (b"\x89PNG", "png"), (b"BM", "bmp"), (b"RIFF", "webp"))


@dataclass(frozen=True)
class Packing:
    """How images are packed.

    Args:
        size: pixels that the shorter edge is brought down to, by the mean of the pixels that are
            joined; smaller images stay as they are. None for all.
        quality: of the JPEG files that are written then, 1 to 100.
        images_per_shard: the last shard of a split may have fewer.
    """

    size: Optional[int] = None
    quality: int = 90
    images_per_shard: int = 1000


def pack(data: str, target: Path, packing: Packing, workers: int, progress: Progress) -> Dict:
    """Write the shards of ``train``, ``val`` and ``test``; return the manifest.

    Args:
        data: any data set; of the splits that it has.
        target: a folder that is made, or one in which the same was begun.
        progress: called with a split, how many of its images are packed, and of how many.

    Raises:
        DataError: when an image cannot be read; what is finished by then stays.
        UserError: when ``target`` lies in the data set, holds something else, is being written by
            another process, or cannot be written.
    """
    refuse_inside("OUT", target, Path(data))
    splits = parts_of(data)
    classes = _class_list(next(iter(splits.values())).classes)
    with _alone(target):
        manifest = _Manifest(target, packing, splits, classes)
        for split, folder in splits.items():
            ranges = _ranges(len(folder), packing.images_per_shard)
            for number, indices in enumerate(ranges):
                name = f"{split}-{number:06}.tar"
                if not manifest.has(split, name):
                    shard = _write_shard(target / name, folder, indices, packing, workers)
                    manifest.add(split, shard)
                progress(split, indices.stop, len(folder))
        return manifest.content


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes that pack out of it, until this one ends.

    Raises:
        UserError: when there is one, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror}") from None
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{folder}: another process packs into it; wait for its end, or give another "
                    "folder"
                ) from None
        yield
    finally:
        os.close(descriptor)


def _class_list(classes: Sequence[str]) -> bytes:
    """The names as ``classes.txt`` has them, one a line.

    Raises:
        DataError: when one would not be read back as it is.
    """
    for name in classes:
        if set(name) & set("\r\n\0") or name != name.strip() or name.startswith("\ufeff"):
            raise DataError(
                f"the class {name!a} has a line feed or the like, or a space at an end, in its "
                "name; rename it"
            )
    try:
        return "".join(f"{name}\n" for name in classes).encode("utf-8")
    except UnicodeEncodeError as error:
        name = error.object.split("\n")[error.object.count("\n", 0, error.start)]
        raise DataError(f"the class {name!a} has a name that is no UTF-8; rename it") from None


def _ranges(count: int, size: int) -> List[range]:
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class _Manifest:
    """What is finished in a folder, and how it was made."""

    def __init__(
        self, folder: Path, packing: Packing, splits: Dict[str, ImageDataset], classes: bytes
    ):
        self._path = folder / MANIFEST
        self._folder = folder
        wanted = {
            "format": FORMAT,
            "packing": asdict(packing),
            "classes": classes.count(b"\n"),
            "classes_sha256": hashlib.sha256(classes[:-1]).hexdigest(),
            "images": {split: len(each) for split, each in splits.items()},
            "labels_sha256": {
                split: hashlib.sha256(each.labels.tobytes()).hexdigest()
                for split, each in splits.items()
            },
        }
        try:
            found = self._read()
            if found is None and any(folder.iterdir()):
                raise UserError(f"{folder}: is not empty; give a new folder")
            if found is not None and {key: found.get(key) for key in wanted} != wanted:
                differ = next(key for key in wanted if found.get(key) != wanted[key])
                raise UserError(f"{folder}: was begun with other {differ}; give a new folder")
            self.content: Dict[str, Any] = found or {**wanted, "shards": {}}
            if found is None:
                self._write()
            write_atomically(folder / CLASSES, classes)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written: {error.strerror}") from None

    def has(self, split: str, name: str) -> bool:
        """Whether a shard is finished, and still as long as it was."""
        for shard in self.content["shards"].get(split, []):
            if shard["name"] == name:
                with contextlib.suppress(OSError):
                    return (self._folder / name).stat().st_size == shard["bytes"]
        return False

    def add(self, split: str, shard: Dict[str, Any]) -> None:
        shards = [
            each for each in self.content["shards"].get(split, []) if each["name"] != shard["name"]
        ]
        self.content["shards"][split] = sorted((*shards, shard), key=lambda each: each["name"])
        self._write()

    def _read(self) -> Optional[Dict[str, Any]]:
        try:
            with open_regular(self._path) as file:
                found = json.loads(file.read(_MAX_MANIFEST))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            raise UserError(f"{self._path}: is damaged; give a new folder") from None
        if not isinstance(found, dict) or found.get("shards") is None:
            return None
        if not _are_shards(found["shards"]):
            raise UserError(f"{self._path}: is damaged; give a new folder")
        return found

    def _write(self) -> None:
        write_atomically(self._path, (json.dumps(self.content, indent=1) + "\n").encode())


def _are_shards(shards: Any) -> bool:
    """Whether these are lists of what ``_write_shard`` returns, by split."""
    if not isinstance(shards, dict) or not all(isinstance(each, list) for each in shards.values()):
        return False
    return all(
        isinstance(shard, dict) and {key: type(shard.get(key)) for key in _SHARD} == _SHARD
        for each in shards.values()
        for shard in each
    )


def _write_shard(
    path: Path, folder: ImageDataset, indices: range, packing: Packing, workers: int
) -> Dict[str, Any]:
    """One archive and what the manifest says of it."""
    part = path.with_name(path.name + ".part")
    digest, kept = hashlib.sha256(), 0
    try:
        with part.open("wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for index, content, is_same in _contents(folder, indices, packing, workers):
                    key = _key(folder, index)
                    _add(archive, f"{key}.{_suffix(content, folder.paths[index])}", content)
                    _add(archive, f"{key}.cls", str(int(folder.labels[index])).encode())
                    kept += is_same
            file.flush()
            os.fsync(file.fileno())
        with part.open("rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        size = part.stat().st_size
        part.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return {
        "name": path.name,
        "images": len(indices),
        "as_they_were": kept,
        "bytes": size,
        "sha256": digest.hexdigest(),
    }


def _contents(
    folder: ImageDataset, indices: range, packing: Packing, workers: int
) -> Iterator[Tuple[int, bytes, bool]]:
    """Index, file and whether it is the source's own, in order; a few are made ahead."""
    with ThreadPoolExecutor(workers, "pack") as pool:
        for start in range(indices.start, indices.stop, _CHUNK):
            chunk = range(start, min(start + _CHUNK, indices.stop))
            yield from zip(chunk, *_columns(pool.map(lambda i: _packed(folder, i, packing), chunk)))


def _columns(pairs: Iterator[Tuple[bytes, bool]]) -> Sequence[Sequence]:
    return list(zip(*pairs))


def _packed(folder: ImageDataset, index: int, packing: Packing) -> Tuple[bytes, bool]:
    """An image's file, and whether it is the source's own."""
    if not folder.has_files:
        return cv2.imencode(".png", folder.read(index))[1].tobytes(), False
    data = folder.content(index)
    image = decode_image(data, folder.paths[index])  # also where it is kept: shards are sound
    if packing.size is None or min(image.shape[:2]) <= packing.size:
        return data, True
    quality = [cv2.IMWRITE_JPEG_QUALITY, packing.quality]
    return cv2.imencode(".jpg", shrunk(image, packing.size), quality)[1].tobytes(), False


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """The image with a shorter edge of ``size`` pixels."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    return cv2.resize(image, shape, interpolation=cv2.INTER_AREA)


def _key(folder: ImageDataset, index: int) -> str:
    """A sample's name: its place, and its file's name as far as it is plain."""
    name = folder.paths[index].rpartition("/")[2].rpartition(": ")[2].partition(".")[0]
    return f"{index:08}_" + re.sub(r"[^A-Za-z0-9_-]", "_", name)[-60:]


def _suffix(content: bytes, name: str) -> str:
    """Of a file of this content, which comes from one of this name."""
    own = Path(name).suffix.lower()
    usual = own[1:] if own in EXTENSIONS else "jpg"
    return next((suffix for start, suffix in _SUFFIXES if content.startswith(start)), usual)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))


def parser() -> flags.Parser:
    """The command line."""
    parser = flags.Parser("prepare_data.py", __doc__)
    parser.add_argument("data", metavar="SRC", help="a data set, see docs/datasets.md")
    parser.add_argument("target", metavar="OUT", type=Path, help="a new folder, or one to go on in")
    parser.add_argument(
        "--size",
        type=flags.positive,
        metavar="PX",
        help="bring larger images down to a shorter edge of PX pixels (default: files as they are)",
    )
    parser.add_argument(
        "--quality",
        type=_percent,
        default=90,
        metavar="Q",
        help="of the JPEG files that --size makes (default: %(default)s)",
    )
    parser.add_argument(
        "--images-per-shard",
        type=flags.positive,
        default=1000,
        metavar="N",
        help="images in one archive (default: %(default)s)",
    )
    flags.add_workers(parser, "read and write images", may_be_none=False)
    return parser


def _percent(text: str) -> int:
    number = flags.positive(text)
    if number > 100:
        raise argparse.ArgumentTypeError("expected 1 to 100")
    return number


def start(args: argparse.Namespace) -> int:
    """Pack as the flags say."""
    cv2.setNumThreads(0)  # one thread per image
    bar = SplitBar("Pack")
    packing = Packing(args.size, args.quality, args.images_per_shard)
    try:
        manifest = pack(args.data, args.target, packing, args.workers, bar)
    finally:
        bar.console.stop_bar()
    for split, shards in manifest["shards"].items():
        images, kept = (sum(each[key] for each in shards) for key in ("images", "as_they_were"))
        size = sum(each["bytes"] for each in shards)
        bar.console.line(
            f"{split}: {images:,} images in {len(shards)} shards, {size / 1e6:,.1f} MB; "
            f"{kept:,} files as they were"
        )
    bar.console.line(f"{printable(str(args.target))}: ready for --data")
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the script; return its exit code."""
    return flags.run(parser(), start, argv)


if __name__ == "__main__":
    sys.exit(main())
