"""One data set in every form: the same images and classes, read where they are."""

import io
import logging
import os
import pickle
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import zipfile

import numpy as np
import pytest

from official.vision.classification.data import check
from official.vision.classification.data.folder import load_split
from official.vision.classification.data.sources import entries as entries_module
from official.vision.classification.data.sources.archives import ArchivedImages
from official.vision.classification.data.splits import open_training
from official.vision.classification.errors import DataError
from tests.vision.classification.data.sources.forms import (
    CLASSES,
    FORMS,
    LABELS,
    add,
    official,
    one_tar,
    one_zip,
    pixels,
    png,
    stored_zip,
    webdataset_json,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where indexes are kept."""
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "resnet_indexes"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def refusal(path, split="val"):
    """The one line about why a data set cannot be used, and that it names the path."""
    with pytest.raises(DataError) as caught:
        folder = load_split(path, split)
        for index in range(len(folder)):
            folder.read(index)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pack(path, files):
    """A tar archive of contents by name."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            add(archive, name, content)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_in_every_form(form, root):
    path = FORMS[form](root)
    for split, labels in LABELS.items():
        for folder in (load_split(path, split), load_split(str(path), split)):  # the second: kept
            assert len(folder) == len(labels) and folder.classes == CLASSES
            assert folder.labels.dtype == np.int32 and folder.labels.tolist() == labels
            assert len(set(folder.paths)) == len(labels)
            for index in range(len(labels)):
                np.testing.assert_array_equal(folder.read(index), pixels(split, index))
                assert folder.content(index) == png(split, index) or "shards" in folder.paths[0]
    data = open_training(path)
    assert (len(data.train), len(data.val)) == tuple(map(len, LABELS.values()))
    assert data.held_out is None and data.test is None
    unused = [line for line in data.lines[1:] if re.match("data: not used: .*test.* class", line)]
    assert unused == data.lines[1:] and len(unused) == form.startswith("kaggle")  # no classes there
    report = check.check_data(str(path), ("train", "val", "test"), 2, lambda *_: None)
    assert report.is_sound, (report.problems, report.unreadable)
    assert [f"data: {warning}" for warning in report.warnings] == unused
    assert report.counts["val"] == dict(zip(CLASSES, (2, 3, 2)))


def _claiming(count):
    """An archive of numpy whose array has, by its header, so many numbers."""
    header = io.BytesIO()
    about = {"descr": "<i8", "fortran_order": False, "shape": (count, 2)}
    np.lib.format.write_array_header_1_0(header, about)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("stamps.npy", header.getvalue())
    return buffer.getvalue()


def test_an_index_is_made_once_and_checked(root, home, monkeypatch):
    path = one_tar(root)
    expected = load_split(path, "train")
    (kept,) = home.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    scan = entries_module._scan
    looks = []
    monkeypatch.setattr(entries_module, "_scan", lambda path: looks.append(path) or scan(path))
    assert list(load_split(path, "train").paths) == list(expected.paths) and not looks
    for spoil in (
        lambda: kept.write_bytes(b"no index"),
        lambda: kept.write_bytes(kept.read_bytes()[:-300]),
        lambda: kept.chmod(0o666),
        lambda: path.touch(),
        kept.unlink,
        lambda: (kept.unlink(), os.mkfifo(kept)),
        lambda: (kept.rename(home / "other"), kept.symlink_to(home / "other")),
        lambda: np.savez(kept.open("wb"), stamps=np.zeros(1)),
        lambda: kept.write_bytes(_claiming(1 << 60)),
    ):
        spoil()
        looks.clear()
        assert list(load_split(path, "train").paths) == list(expected.paths) and len(looks) == 1
        looks.clear()


def test_an_index_that_points_past_the_archive(root, home):
    path = one_tar(root)
    load_split(path, "train")
    (kept,) = home.iterdir()
    columns = dict(np.load(kept))
    for key, value in (("offset", 1 << 40), ("shard", 1), ("size", -1)):
        with kept.open("wb") as file:
            np.savez(file, **{**columns, key: np.full_like(columns[key], value)})
        folder = load_split(path, "train")
        np.testing.assert_array_equal(folder.read(3), pixels("train", 3))


def test_without_a_place_for_the_index(root, tmp_path, monkeypatch, caplog):
    """It goes to a temporary folder, and where there is none either, it is not kept."""
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    path = one_tar(root)
    assert len(load_split(path, "val")) == 7
    assert len(list((tmp_path / "temporary").glob("resnet_indexes-*/*.npz"))) == 1
    assert "are kept in" in caplog.text
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert len(load_split(path, "val")) == 7


def test_an_index_that_others_could_have_written_is_not_used(root, home, monkeypatch, caplog):
    """The folder is anybody's: what lies there may be a stranger's, and is left alone."""
    path = one_tar(root)
    expected = load_split(path, "train")
    (kept,) = home.iterdir()
    spoiled = kept.read_bytes()[:-200]
    kept.write_bytes(spoiled)
    home.chmod(0o777)
    monkeypatch.setattr(tempfile, "tempdir", str(root))
    assert list(load_split(path, "train").paths) == list(expected.paths)
    assert kept.read_bytes() == spoiled and "can be written by others" in caplog.text
    (elsewhere,) = root.glob("resnet_indexes-*/*.npz")
    assert elsewhere.name == kept.name


@pytest.mark.parametrize("planted", ["link", "pipe"])
def test_an_index_is_a_regular_file(planted, root, home, tmp_path, monkeypatch):
    path = one_tar(root)
    expected = load_split(path, "train")
    (kept,) = home.iterdir()
    kept.rename(tmp_path / "real.npz")
    if planted == "link":
        kept.symlink_to(tmp_path / "real.npz")
    else:
        os.mkfifo(kept)
    scan, looks = entries_module._scan, []
    monkeypatch.setattr(entries_module, "_scan", lambda path: looks.append(path) or scan(path))
    assert list(load_split(path, "train").paths) == list(expected.paths) and len(looks) == 1
    assert kept.is_file() and not kept.is_symlink()  # made anew


@pytest.mark.parametrize("form", [one_tar, one_zip])
def test_an_archive_that_changes_while_it_is_read(form, root):
    path = form(root)
    folder = load_split(path, "val")
    content = path.read_bytes()
    path.write_bytes(content + b"\0" * 512)
    with pytest.raises(DataError, match="has changed since it was opened"):
        folder.read(0)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read: No such file"):
        folder.read(0)


def test_reading_from_many_threads(root):
    folder = load_split(one_zip(root), "train")
    wrong = []

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, 12, 60).tolist():
            if not (folder.read(index) == pixels("train", index)).all():
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_one_archive_without_splits_is_all_of_any(root):
    path = pack(root / "flowers.tar", {"b/1.png": png("val", 1), "a/2.png": png("val", 2)})
    for split in ("train", "val", "test"):
        folder = load_split(path, split)
        assert folder.classes == ("a", "b") and type(folder) is ArchivedImages
        np.testing.assert_array_equal(folder.read(0), pixels("val", 2))


def test_a_split_that_is_not_there(root):
    path = pack(root / "all.tar", {"train/a/1.png": png("val", 1)})
    assert "holds 1 for train, and no val or test" in refusal(path)
    path.rename(root / "train.tar")
    assert "no archive for val or test; there are 1 for train" in refusal(root)


def test_the_later_of_two_files_of_one_name_counts(root):
    """As it would if somebody unpacked them: tar --append adds, and does not replace."""
    path = root / "a.tar"
    pack(path, {"a/1.png": png("val", 1), "b/2.png": png("val", 2)})
    with tarfile.open(path, "a") as archive:
        add(archive, "a/1.png", png("val", 3))
    folder = load_split(path, "val")
    assert folder.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(folder.read(0), pixels("val", 3))


def test_labels_that_are_numbers(root):
    """Classes without images keep their places; without a list of names they are numbers."""
    webdataset_json(root)
    (root / "classnames.txt").unlink()
    assert load_split(root, "train").classes == ("0", "1", "2")
    files = {"x.cls": b"10\n", "x.png": png("val", 0), "y.cls": b"2", "y.png": png("val", 1)}
    pack(root / "imagenet1k-train-0000.tar", files)
    folder = load_split(root, "train")
    assert folder.classes == tuple(map(str, range(11))) and folder.labels.tolist() == [10, 2]
    (root / "classes.txt").write_text("a\nb\n")
    assert "a label is 10, but the list of classes has 2 lines" in refusal(root, "train")
    (root / "classes.txt").write_text("a\nb\na\n")
    assert "classes.txt: names the class 'a' twice" in refusal(root, "train")


def test_a_label_of_minus_one_is_none(root):
    """As Hugging Face's test sets have it; among names it is one."""
    files = {"x.cls": b"-1\n", "x.png": png("val", 0), "y.cls": b"2", "y.png": png("val", 1)}
    pack(root / "test.tar", files)
    assert "a label is -1: images without classes" in refusal(root, "test")
    pack(root / "test.tar", {**files, "y.cls": b"cold"})
    assert load_split(root, "test").classes == ("-1", "cold")


def test_labels_that_are_names(root):
    files = {"1.json": b'{"label": "dog"}', "1.jpg": png("val", 0), "2.cls": b"cat \n"}
    pack(root / "val.tar", {**files, "2.jpg": png("val", 1), "2.txt": b"a caption"})
    folder = load_split(root, "val")
    assert folder.classes == ("cat", "dog") and folder.labels.tolist() == [1, 0]


def test_labels_that_are_not_in_utf_8(root):
    """Two of them stay two, and are the same when they come from the index that was kept."""
    files = {"1.cls": b"\xe9t\xe9", "1.jpg": png("val", 0), "2.cls": b"\xe8t\xe8"}
    pack(root / "val.tar", {**files, "2.jpg": png("val", 1)})
    for _ in range(2):
        folder = load_split(root, "val")
        assert folder.classes == ("\udce8t\udce8", "\udce9t\udce9")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"1.json": b'{"label": "\\ud800"}', "1.png": b"x"}, "1 images have no class"),
        ({"1.png": b"x", "a/2.png": b"x"}, "images in different places|have no class"),
        ({"1.png": b"x", "2.png": b"x"}, r"2 images have no class \(1.png, 2.png\)"),
        ({"1.cls": b"3", "1.png": b"x", "2.png": b"x"}, r"1 images have no class \(2.png\)"),
        ({"1.json": b"[" * 60000, "1.png": b"x"}, "1 images have no class"),
        ({"x/a/1.png": b"x", "y/a/2.png": b"x"}, "in different places, 'x' and 'y'"),
        ({"readme.txt": b"x"}, "holds no images .*, but .readme.txt.; expected a folder of them"),
        ({"a/1.png": b"x"}, "a/1.png: not an image"),
        ({"a/1.png": b""}, "a/1.png: the file is empty"),
    ],
)
def test_what_cannot_be_used(files, reason, root):
    assert re.search(reason, refusal(pack(root / "a.tar", files)))


def test_archives_that_are_compressed_as_a_whole(root):
    path = one_tar(root)
    with tarfile.open(root / "train.tar.gz", "w:gz") as archive:
        archive.add(path, "x")
    path.unlink()
    message = refusal(root, "train")
    assert "train.tar.gz: is compressed as a whole" in message and "gunzip --keep" in message


def test_two_kinds_for_one_split(root):
    path = one_tar(root)
    shutil.copy(path, root / "train.tar")
    shutil.copy(one_zip(root), root / "train.zip")
    assert "has train.tar and train.zip, both for one split" in refusal(root, "train")


def test_imagenet_without_the_classes_of_its_images(root):
    message = refusal(official(root, kit=False))
    assert "ILSVRC2012_devkit_t12.tar.gz or Kaggle's LOC_val_solution.csv beside them" in message
    (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n")
    assert "'ILSVRC2012_val_00000001.JPEG' is not in ImageNet's list" in refusal(root)
    (root / "LOC_val_solution.csv").write_text("ILSVRC2012_val_00000001,n1 3 4\n")
    assert "line 1 is 'ILSVRC2012_val_00000001,n1 3 4'; expected" in refusal(root)


def test_other_archives_beside_imagenets(root):
    official(root)
    for name in ("ILSVRC2012_img_train_t3.tar", "ILSVRC2012_bbox_train_v2.tar.gz"):
        (root / name).write_bytes(b"of no use here")
    assert len(load_split(root, "train")) == 12


# Hostile archives


def test_files_that_are_no_images_are_told(root):
    files = {"a/1.png": png("val", 1), "a/2.txt": b"x", "a/._1.png": b"x", "b/3.doc": b"x"}
    report = check.check_data(str(pack(root / "a.tar", files)), ("val",), 1, lambda *_: None)
    assert report.is_sound and "has no splits" in report.warnings[0]
    assert "2 files are not named as images, and not used (a/2.txt, b/3.doc)" in report.warnings[1]


def test_links_and_devices_are_no_images(root, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png("val", 0))
    path = root / "a.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            link = tarfile.TarInfo(f"a/{ord(kind)}.png")
            link.type, link.linkname = kind, str(secret)
            archive.addfile(link)
        add(archive, "a/../../b/1.png", png("val", 1))
        add(archive, "/etc/a/1.png", png("val", 1))
    folder = load_split(path, "val")
    assert len(folder) == 1 and folder.classes == ("a",)
    np.testing.assert_array_equal(folder.read(0), pixels("val", 1))


def test_a_header_that_claims_too_much(root):
    path = pack(root / "a.tar", {"a/1.png": png("val", 1)})
    content = bytearray(path.read_bytes())
    content[124:136] = b"77777777777\0"
    content[148:156] = b" " * 8
    content[148:155] = b"%06o\0" % sum(content[:512])
    path.write_bytes(content)
    assert "a.tar: the archive is cut short in 'a/1.png'; download it again" in refusal(path)


def test_a_damaged_header(root):
    path = pack(root / "a.tar", {f"a/{i}.png": png("val", i) for i in range(3)})
    content = path.read_bytes()
    at = content.index(b"a/1.png")
    path.write_bytes(content[:at] + b"?" + content[at + 1 :])
    assert "a.tar: damaged after 'a/0.png'; download it again" in refusal(path)
    for cut in (at + 100, at + 600):
        path.write_bytes(content[:cut])
        assert "download it again" in refusal(path)


def test_extended_headers(root):
    """pax: a name in UTF-8 and a size; a length of 0, 20 digits or none is damage, not a loop."""
    path = root / "a.tar"
    name = "é" * 80 + "/1.png"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size, member.pax_headers = len(png("val", 1)), {"size": str(len(png("val", 1)))}
        archive.addfile(member, io.BytesIO(png("val", 1)))
    assert load_split(path, "val").classes == ("é" * 80,)
    content = path.read_bytes()
    at = content.index(b" path=") - 3
    for bad in (b"000", b"xxx", b"-12"):
        path.write_bytes(content[:at] + bad + content[at + 3 :])
        begin = time.monotonic()
        assert "a.tar" in refusal(path)
        assert time.monotonic() - begin < 5


def test_a_file_with_holes(root):
    """GNU's sparse files are not stored as they are: no image is, and what follows is found."""
    (root / "x" / "a").mkdir(parents=True)
    with (root / "x" / "a" / "0.png").open("wb") as file:
        for block in range(40):
            file.seek(block << 16)
            file.write(b"x" * 4096)
    (root / "x" / "a" / "1.png").write_bytes(png("val", 1))
    for style in ("gnu", "posix"):
        path = root / f"{style}.tar"
        command = ["tar", f"--format={style}", "--sparse", "-cf", path, "-C", root / "x"]
        subprocess.run([*command, "a/0.png", "a/1.png"], check=True)
        folder = load_split(path, "val")
        assert len(folder) == 1
        np.testing.assert_array_equal(folder.read(0), pixels("val", 1))


def test_a_zip_member_that_unpacks_to_more_than_it_says(root):
    path = root / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", b"\0" * (1 << 22))
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    for size, reason in ((100, "does not unpack to the 100 bytes"), (1 << 30, "expected at most")):
        path.write_bytes(content[: at + 24] + struct.pack("<I", size) + content[at + 28 :])
        assert reason in refusal(path)


def test_zip_members_that_are_not_where_they_should_be(root):
    path = stored_zip(root)
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    path.write_bytes(content[: at + 42] + struct.pack("<I", 7) + content[at + 46 :])
    assert "all.zip: val/" in refusal(path) and "is not where" in refusal(path)
    path.write_bytes(content[:-30])
    assert "all.zip" in refusal(path)


def test_zip_members_that_are_encrypted_or_packed_in_rare_ways(root):
    path = root / "a.zip"
    for method, name in ((zipfile.ZIP_BZIP2, "packed in a rare way"), (0, "encrypted")):
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a/1.png", png("val", 1))
        if not method:
            content = bytearray(path.read_bytes())
            content[content.rindex(b"PK\x01\x02") + 8] |= 1
            path.write_bytes(content)
        assert name in refusal(path)


def test_a_zip_directory_of_too_many_entries(root):
    path = one_zip(root)
    content = bytearray(path.read_bytes())
    end = content.rindex(b"PK\x05\x06")
    struct.pack_into("<I", content, end + 12, 0xFFFF0000)
    path.write_bytes(content)
    assert "has more than 20,000,000 files" in refusal(path)


# Parquet


def parquet_file(path, image=None, labels=(0, 1), **options):
    import pyarrow as pa
    import pyarrow.parquet as pq

    if image is None:
        image = pa.array([{"bytes": png("val", i), "path": f"{i}.png"} for i in range(len(labels))])
    table = pa.table({"image": image, "label": pa.array(labels)})
    pq.write_table(table, path, **options)
    return path


def test_parquet_in_many_row_groups(root, monkeypatch, caplog):
    from official.vision.classification.data.sources import parquet

    monkeypatch.setattr(parquet, "_MEMORY", 3000)
    monkeypatch.setattr(parquet, "_SLOW_GROUP", 1000)
    path = parquet_file(root / "x.parquet", labels=[0, 1, 2, 1, 0, 2, 1], row_group_size=2)
    with caplog.at_level(logging.WARNING):
        folder = load_split(path, "val")
    assert "tools/prepare_data.py makes shards" in caplog.text
    for index in [6, 0, 3, 1, 5, 2, 4, 0, 6]:
        np.testing.assert_array_equal(folder.read(index), pixels("val", index))
    assert folder.classes == ("0", "1", "2") and folder.paths[6] == f"{path}: row 6"
    assert folder.groups._bytes <= 3000 and len(folder.groups._kept) == 1
    assert load_split(path, "train").paths == folder.paths


def test_parquet_of_another_form(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "x.parquet"
    for columns in ({"image": ["1.png"], "label": [1]}, {"img": [1], "label": [1]}):
        pq.write_table(pa.table(columns), path)
        assert "expected a column image with bytes and a column label" in refusal(path)
    assert "a label is -1: images without classes" in refusal(parquet_file(path, labels=[-1, -1]))
    assert "has rows without label" in refusal(parquet_file(path, labels=[None, 1]))
    nothing = pa.array([{"bytes": None, "path": "x"}] * 2, pa.struct({"bytes": pa.binary()}))
    assert "x.parquet: row 0: the file is empty" in refusal(parquet_file(path, nothing))
    content = parquet_file(path).read_bytes()
    for cut in (content[:-40], content[:200] + content[230:], b"PAR1" + b"\xff" * 100):
        path.write_bytes(cut)
        assert "x.parquet" in refusal(path)


class Sentinel:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_parquet_that_would_run_a_program(root, tmp_path):
    """CVE-2023-47248: an extension type whose description is a pickle."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    storage = pa.array([{"bytes": png("val", 0)}])
    about = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Sentinel(tmp_path / "ran")),
    }
    fields = [pa.field("image", storage.type, metadata=about), pa.field("label", pa.int64())]
    table = pa.Table.from_arrays([storage, pa.array([0])], schema=pa.schema(fields))
    pq.write_table(table, root / "x.parquet")
    assert "would run as a program" in refusal(root / "x.parquet")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["", "\0", "\0/x.png", "/", "//"])
def test_a_member_without_a_name(root, name):
    """Python's zipfile itself fails on one; found by changing bytes."""
    path = one_zip(root)
    expected = load_split(path, "train")
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("nameless")
        info.filename = name
        archive.writestr(info, b"")
    images = load_split(path, "train")
    assert list(images.paths) == list(expected.paths) and len(images) == 12
    np.testing.assert_array_equal(images.read(0), pixels("train", 0))
