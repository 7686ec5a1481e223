"""What a tar archive can do: be read where it is, or end in a DataError at a bounded cost."""

import gzip
import io
import tarfile
import time
import tracemalloc
import zlib

import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.errors import DataError
from official.vision.classification.readers import tar_file
from official.vision.classification.readers.tar_file import read_files
from tests.vision.classification.data.cifar_files import cifar10_files, packed
from tests.vision.classification.data.sources.test_cifar_archive import refusal, written
from tests.vision.classification.readers.handmade import memory_below

pytestmark = pytest.mark.timeout(60)

TEN = cifar10_files()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_the_wanted_files_in_the_archives_order(tmp_path, mode):
    """Of every size around that of a block."""
    sizes = [0, 1, 511, 512, 513, 1024, 3_000_000, 5]
    files = {f"d/{size}": np.random.default_rng(size).bytes(size) for size in sizes}
    path = written(tmp_path / "a", packed(files, mode))
    assert dict(read_files(path, lambda name: True, 1 << 22)) == files
    odd = [name for name in files if int(name[2:]) % 2]
    assert list(read_files(path, odd.__contains__, 1 << 22)) == [(n, files[n]) for n in odd]
    with pytest.raises(DataError, match="its 'd/513' has 513 bytes; expected at most 512"):
        list(read_files(path, lambda name: True, 512))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        list(read_files(tmp_path, lambda name: True, 1))


def everything(path):
    """What can be read, or why it cannot."""
    try:
        return dict(read_files(path, lambda name: True, 1 << 22))
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
        return str(error)[len(f"{path}: ") :]


def test_a_damaged_archive(tmp_path):
    whole = packed(TEN, "w:gz")
    reasons = []
    for at in np.random.default_rng(0).integers(20, len(whole) - 200, 60).tolist():
        found = everything(written(tmp_path / "a", whole[:at] + b"\xff" * 150 + whole[at + 150 :]))
        reasons += [found] if type(found) is str else []
    known = ("the archive is damaged (", "the archive is cut short in '", "damaged after '")
    assert all(reason.startswith(known) for reason in reasons)
    assert any(reason.startswith(known[0]) for reason in reasons)

    plain = packed(TEN, "w")
    second = plain.index(b"cifar-10-batches-py/data_batch_1")
    broken = plain[:second] + b"D" + plain[second + 1 :]
    assert everything(written(tmp_path / "a", broken)) == (
        "damaged after 'cifar-10-batches-py/data_batch_4'; download it again"
    )


def test_names_with_folders_before_them_and_headers_between(tmp_path):
    """As ``tar cf x.tar ./data/cifar-10-batches-py`` and tar on a Mac write them."""
    files = {f"./data/{name}": raw for name, raw in TEN.items()}
    long = {f"{'x' * 120}/{'y' * 120}": b"z" * 700, **files}
    expected = load_split(written(tmp_path / "a", packed(TEN)), "train")
    for options in ({"format": 0}, {"format": 1}, {"format": 2, "pax_headers": {"a": "é" * 900}}):
        names = files if options["format"] == 0 else long
        found = load_split(written(tmp_path / "b", packed(names, **options)), "train")
        np.testing.assert_array_equal(found.pixels, expected.pixels)


def test_links_in_an_archive_are_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(TEN["cifar-10-batches-py/test_batch"])
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo("cifar-10-batches-py/test_batch")
            member.type, member.linkname = kind, str(tmp_path / "secret")
            archive.addfile(member)
        for name in ("batches.meta",):
            raw = TEN[f"cifar-10-batches-py/{name}"]
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    path = written(tmp_path / "a", target.getvalue())
    assert "has no cifar-10-batches-py/test_batch" in refusal(path, "val")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a", "secret"]


def bomb(name, size, content=b""):
    """A gzipped archive whose member claims ``size`` bytes, which are zeros after ``content``."""
    member = tarfile.TarInfo(name)
    member.size = size
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(member.tobuf(tarfile.GNU_FORMAT) + content)]
    zeros = bytes(1 << 20)
    parts += [packer.compress(zeros) for _ in range(min(size, 1 << 27) >> 20)]
    return b"".join(parts) + packer.flush()


def test_bombs_do_not_go_off(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_file, "MAX_UNPACKED", 1 << 26)
    large = "cifar-10-batches-py/data_batch_1"
    cases = {
        "a large batch": (bomb(large, 1 << 40), "has 1,099,511,627,776 bytes; expected at most"),
        "a large batch of zeros": (bomb(large, 1 << 27), "unpacks to more than 67,108,864 bytes"),
        "a large other file": (bomb("readme", 1 << 40), "unpacks to more than 67,108,864 bytes"),
        "a batch that is not there": (bomb(large, 1 << 25)[:500], "the archive is cut short"),
        "a negative size": (bomb("readme", -512), "no train images"),
    }
    for data, reason in cases.values():
        path = written(tmp_path / "a.tar.gz", data)
        start = time.process_time()
        tracemalloc.start()
        try:
            message = refusal(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert reason in message
        assert peak < 1 << 27 and time.process_time() - start < 10


def test_a_member_of_an_extended_header_is_not_read_into_memory(tmp_path):
    member = tarfile.TarInfo("PaxHeaders/x")
    member.size, member.type = 1 << 27, tarfile.XHDTYPE
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(member.tobuf(tarfile.GNU_FORMAT))
    data += b"".join(packer.compress(bytes(1 << 20)) for _ in range(128)) + packer.flush()
    path = written(tmp_path / "a.tar.gz", data)
    with memory_below(8 << 20):
        refusal(path)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_very_many_empty_members(tmp_path, mode):
    """Two million of them took a minute."""
    header = tarfile.TarInfo("x").tobuf()
    data = header * (tar_file.MAX_MEMBERS + 1) + bytes(1024)
    path = tmp_path / "many.tgz"
    path.write_bytes(gzip.compress(data) if mode == "w:gz" else data)
    with pytest.raises(DataError, match="holds more than 10,000 files"):
        list(tar_file.read_files(path, lambda name: False, 100))
    path.write_bytes(header * tar_file.MAX_MEMBERS + bytes(1024))
    assert list(tar_file.read_files(path, lambda name: False, 100)) == []
