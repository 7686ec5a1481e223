"""CIFAR's archives in miniature, in the instructions that Python 2's cPickle wrote (protocol 2).

``test_the_published_meta_files`` shows that what this writes is, byte for byte, what was published.
"""

import io
import struct
import tarfile
from pathlib import Path

import numpy as np

ASSETS = Path(__file__).resolve().parents[4] / "official" / "assets"
CIFAR10 = tuple((ASSETS / "cifar10_classes.txt").read_text().split())
CIFAR100 = tuple((ASSETS / "cifar100_classes.txt").read_text().split())
COARSE = (
    "aquatic_mammals fish flowers food_containers fruit_and_vegetables "
    "household_electrical_devices household_furniture insects large_carnivores "
    "large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores "
    "medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 "
    "vehicles_2"
).split()


class Python2Pickle:
    """Dicts of text, numbers, lists of these and arrays of bytes."""

    def __init__(self):
        self._memo = 0

    def dumps(self, values):
        return b"\x80\x02" + self._value(values) + b"."

    def _put(self):
        self._memo += 1
        return struct.pack("<cB", b"q", self._memo) if self._memo < 256 else self._long_put()

    def _long_put(self):
        return struct.pack("<cI", b"r", self._memo)

    def _value(self, value):
        if isinstance(value, dict):
            head = b"}" + self._put() + b"("
            return head + b"".join(map(self._value, sum(value.items(), ()))) + b"u"
        if isinstance(value, list):
            return b"]" + self._put() + b"(" + b"".join(map(self._value, value)) + b"e"
        if isinstance(value, str):
            return b"U" + bytes([len(value)]) + value.encode() + self._put()
        if isinstance(value, np.ndarray):
            return self._array(value)
        return self._number(value)

    def _number(self, value):
        if not 0 <= value < 65536:
            return struct.pack("<ci", b"J", value)
        return struct.pack("<cB", b"K", value) if value < 256 else struct.pack("<cH", b"M", value)

    def _array(self, array):
        fortran = not array.flags.c_contiguous
        raw = array.tobytes("F" if fortran else "C")
        shape = b"".join(map(self._number, array.shape)) + b"\x86" + self._put()
        return b"".join(
            [
                b"cnumpy.core.multiarray\n_reconstruct\n" + self._put(),
                b"cnumpy\nndarray\n" + self._put(),
                b"K\x00\x85U\x01b\x87R" + self._put() + b"(K\x01" + shape,
                b"cnumpy\ndtype\n" + self._put(),
                b"U\x02" + array.dtype.str[1:].encode() + b"K\x00K\x01\x87R" + self._put(),
                b"(K\x03U\x01" + array.dtype.str[:1].encode(),
                b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
                b"\x88" if fortran else b"\x89",
                b"T" + struct.pack("<I", len(raw)) + raw + b"tb",
            ]
        )


def dumps(values):
    return Python2Pickle().dumps(values)


def batch(seed, count, classes, **changes):
    """A pickle of ``count`` random images whose labels are random but for the first."""
    rng = np.random.default_rng(seed)
    values = {
        "batch_label": f"batch {seed}",
        "labels": [seed % classes, *rng.integers(0, classes, count - 1).tolist()],
        "data": rng.integers(0, 256, (count, 3072), np.uint8),
        "filenames": [f"thing_s_{index:06}.png" for index in range(count)],
        **changes,
    }
    return dumps({key: value for key, value in values.items() if value is not None})


def cifar10_files(count=6):
    """The members of ``cifar-10-python.tar.gz``, with ``count`` images per batch."""
    meta = {"num_cases_per_batch": 10000, "label_names": list(CIFAR10), "num_vis": 3072}
    files = {f"data_batch_{number}": batch(number, count, 10) for number in (4, 1, 5, 2, 3)}
    files.update({"batches.meta": dumps(meta), "test_batch": batch(6, count + 2, 10)})
    return {f"cifar-10-batches-py/{name}": files[name] for name in files}


def cifar100_files(count=300):
    """The members of ``cifar-100-python.tar.gz``, with ``count`` images to train on."""
    meta = {"fine_label_names": list(CIFAR100), "coarse_label_names": COARSE}
    files = {"meta": dumps(meta)}
    for seed, (name, images) in enumerate((("test", 50), ("train", count))):
        fine = np.random.default_rng(seed).integers(0, 100, images).tolist()
        files[name] = batch(
            *(seed, images, 100),
            labels=None,
            fine_labels=fine,
            coarse_labels=[label // 5 for label in fine],
        )
    return {f"cifar-100-python/{name}": files[name] for name in files}


def packed(files, mode="w:gz", **options):
    """A tar archive with the folder itself as its first member, as the published ones have it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode, **options) as archive:
        folder = tarfile.TarInfo(next(iter(files)).split("/")[0])
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(folder)
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return target.getvalue()


def unpack(files, root):
    """Write the members below ``root``; return their folder."""
    for name, raw in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(raw)
    return root / next(iter(files)).split("/")[0]
