import io
import random
import struct
import zipfile

import pytest

from official.vision.classification.readers import zip_archive
from official.vision.classification.readers.zip_archive import Archive, ArchiveError
from tests.vision.classification.readers.handmade import FILES, memory_below, stored

MEMBERS = {"a/one": b"first", "a/two": b"", "b": bytes(range(256)), "é": b"x"}
GOOD = stored(MEMBERS)
ENTRY, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


def refusal(data, name=None):
    with pytest.raises(ArchiveError) as caught:
        archive = Archive(data)
        archive.read(name or archive.names[0])
    assert len(str(caught.value)) < 200
    return str(caught.value)


def changed(data, at, raw):
    return data[:at] + raw + data[at + len(raw) :]


def entry_field(index, offset, raw):
    """GOOD with one field of the directory's entry ``index`` changed."""
    at = -1
    for _ in range(index + 1):
        at = GOOD.index(ENTRY, at + 1)
    return changed(GOOD, at + offset, raw)


def test_members_of_what_zipfile_writes():
    archive = Archive(GOOD)
    assert archive.names == list(MEMBERS)
    for name, raw in MEMBERS.items():
        assert bytes(archive.read(name)) == raw and archive.size(name) == len(raw)
    assert "no member c" in refusal(GOOD, "c")
    assert Archive(stored({})).names == []


def test_members_of_what_torch_writes():
    data = (FILES / "zip_2.pth").read_bytes()
    archive = Archive(data)
    with zipfile.ZipFile(io.BytesIO(data)) as expected:
        assert archive.names == expected.namelist()
        for name in archive.names:
            assert bytes(archive.read(name)) == expected.read(name)


def test_zip64(monkeypatch):
    """Sizes and offsets in extra fields, as for files of more than 4 GiB."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 3)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, raw in MEMBERS.items():
            archive.writestr(name, raw)
    data = file.getvalue()
    assert b"PK\x06\x06" in data and b"PK\x06\x07" in data
    archive = Archive(data)
    assert {name: bytes(archive.read(name)) for name in archive.names} == MEMBERS


def test_names_of_old_archives():
    """Without the flag for UTF-8, names are in code page 437: 0x82 is é."""
    data = GOOD.replace("é".encode(), b"\x82\x82")
    for signature, offset in ((LOCAL, 6), (ENTRY, 8)):
        data = changed(data, data.rindex(signature) + offset, b"\x00\x00")
    assert bytes(Archive(data).read("éé")) == b"x"


def test_checksums():
    at = GOOD.index(b"first")
    assert "checksum of its member a/one is wrong" in refusal(changed(GOOD, at, b"F"))
    # When all of them are 0 there are none.
    none = GOOD
    for index in range(len(MEMBERS)):
        at = [i for i in range(len(none)) if none.startswith(ENTRY, i)][index]
        none = changed(none, at + 16, bytes(4))
    assert bytes(Archive(none).read("a/one")) == b"first"


WRONG = {
    "encrypted": (entry_field(0, 8, b"\x01\x00"), "member a/one is encrypted"),
    "strongly encrypted": (entry_field(0, 8, b"\x40\x00"), "a/one is encrypted"),
    "deflated": (stored(MEMBERS, zipfile.ZIP_DEFLATED), "a/one is compressed"),
    "bzip2": (stored(MEMBERS, zipfile.ZIP_BZIP2), "a/one is compressed"),
    "deflated to the same size": (entry_field(0, 10, b"\x08\x00"), "a/one is compressed"),
    "two sizes": (entry_field(0, 24, struct.pack("<I", 1 << 30)), "a/one is compressed"),
    "another place": (entry_field(1, 42, struct.pack("<I", 5)), "overlaps"),
    "a place past the end": (entry_field(3, 42, struct.pack("<I", 1 << 30)), "not where"),
    "no place": (entry_field(0, 42, struct.pack("<I", 5)), "not where the directory says"),
    "another name": (changed(GOOD, GOOD.index(b"a/one"), b"b/one"), "not where the directory"),
    "past the end": (entry_field(3, 20, struct.pack("<II", 1 << 30, 1 << 30)), "past the end"),
    "over the next": (entry_field(2, 20, struct.pack("<II", 300, 300)), "é overlaps another"[4:]),
    "the same name": (GOOD.replace(b"a/two", b"a/one"), "name comes twice"),
    "cut": (GOOD[:-1], "damaged"),
    "no directory": (GOOD[: GOOD.index(ENTRY)], "damaged"),
    "a future version": (entry_field(0, 6, b"\xff"), "damaged"),
}


@pytest.mark.parametrize("case", WRONG)
def test_unsound_archives_are_refused(case):
    data, expected = WRONG[case]
    with memory_below(1 << 20):
        assert expected in refusal(data)


def test_members_cannot_share_their_bytes():
    """A thousand entries for one member of a megabyte: each alone would be sound."""
    raw = stored({"a": bytes(1 << 20)})
    start, end = raw.index(ENTRY), raw.index(END)
    entry = raw[start:end]
    entries = b"".join(entry[:46] + b"a" for _ in range(1000))
    tail = END + struct.pack("<4H2IH", 0, 0, 1000, 1000, len(entries), start, 0)
    with memory_below(4 << 20):
        assert "comes twice" in refusal(raw[:start] + entries + tail)
    # With names of their own, each needs a local header with that name; nest them in the content.
    locals_, directory = b"", b""
    header = struct.Struct("<4s5H3I2H")
    for index in reversed(range(20)):
        name, size = b"%02d" % index, len(locals_)
        locals_ = header.pack(LOCAL, 20, 0, 0, 0, 0, 0, size, size, 2, 0) + name + locals_
    for index in range(20):
        size = (19 - index) * (30 + 2)
        fields = (ENTRY, 20, 20, 0, 0, 0, 0, 0, size, size, 2, 0, 0, 0, 0, 0, index * (30 + 2))
        directory += struct.pack("<4s6H3I5H2I", *fields) + b"%02d" % index
    tail = END + struct.pack("<4H2IH", 0, 0, 20, 20, len(directory), len(locals_), 0)
    with zipfile.ZipFile(io.BytesIO(locals_ + directory + tail)) as check:
        assert sum(info.file_size for info in check.infolist()) == 19 * 20 // 2 * 32
    assert "overlaps another" in refusal(locals_ + directory + tail)


def test_the_number_of_members_is_bounded(monkeypatch):
    data = GOOD + ENTRY * (zip_archive.MAX_MEMBERS + 1)
    with memory_below(1 << 20):
        assert "more than 20,000 members" in refusal(data)
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", len(MEMBERS))
    assert Archive(GOOD).names
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", len(MEMBERS) - 1)
    assert "members" in refusal(GOOD)


def test_any_other_bytes_end_in_an_error_of_ours():
    generator = random.Random(3)
    read = refused = 0
    for _ in range(2000):
        data = bytearray(GOOD)
        for _ in range(generator.randrange(1, 4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            archive = Archive(bytes(data))
            for name in archive.names:
                archive.read(name)
            read += 1
        except ArchiveError:
            refused += 1
    assert refused > 500 and read > 100
