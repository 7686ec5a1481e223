"""Packing data sets into shards, through the script."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import cv2
import numpy as np
import pytest

from official.vision.classification.data.folder import load_split
from official.vision.classification.data.splits import open_training
from official.vision.classification.errors import DataError, UserError
from tests.scripts import ROOT, load_script
from tests.vision.classification.data.cifar_files import cifar10_files, packed
from tests.vision.classification.data.sources.forms import (
    CLASSES,
    LABELS,
    add,
    official,
    pixels,
    png,
    tree,
)
from tests.vision.classification.data.test_jpeg import encoded, exif, picture, with_segment

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def tool():
    return load_script("tools/prepare_data.py")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MGE_HOME", str(tmp_path / "home"))


@pytest.fixture
def photos(tmp_path):
    """Four photographs, of which one is small, one lies on its side and one is a PNG file."""
    files = {
        "train/a/1.jpg": encoded(picture((90, 120), 1)),
        "train/a/2.jpg": with_segment(encoded(picture((90, 120), 2)), exif(6)),
        "train/b/small.jpg": encoded(picture((40, 70), 3)),
        "val/b/x.y z.png": cv2.imencode(".png", picture((100, 80), 4))[1].tobytes(),
    }
    for name, data in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path / "photos"


def run(tool, *words):
    return tool.main([str(word) for word in words])


def samples(path):
    """Contents of an archive by name, as tar itself tells them."""
    with tarfile.open(path) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


@pytest.mark.parametrize("form", [tree, official])
def test_the_same_images_in_the_same_places(tool, form, tmp_path, capsys):
    (tmp_path / "src").mkdir()
    source, out = form(tmp_path / "src"), tmp_path / "out"
    assert run(tool, source, out, "--images-per-shard", 5, "-j", 2) == 0
    assert "train: 12 images in 3 shards" in capsys.readouterr().out
    for split, labels in LABELS.items():
        folder = load_split(out, split)
        assert folder.classes == CLASSES and folder.labels.tolist() == labels
        for index in range(len(labels)):
            assert folder.content(index) == png(split, index)
    manifest = json.loads((out / "manifest.json").read_text())
    assert [each["images"] for each in manifest["shards"]["train"]] == [5, 5, 2]
    for shard in manifest["shards"]["train"] + manifest["shards"]["val"]:
        content = (out / shard["name"]).read_bytes()
        assert shard["sha256"] == hashlib.sha256(content).hexdigest()
        assert shard["bytes"] == len(content) and shard["as_they_were"] == shard["images"]
    assert not list(out.glob("*.part"))


def test_all_parts_are_packed_and_serve_as_they_did(tool, tmp_path, capsys):
    source, out = tmp_path / "photos", tmp_path / "out"
    for split, count in (("train", 12), ("test", 4)):
        for index in range(count):
            path = source / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(split, index) if split in LABELS else png("val", index))
    assert run(tool, source, out) == 0
    before, after = open_training(source), open_training(out)
    for data in (before, after):
        assert len(data.train) + len(data.val) == 12 and len(data.test) == 4
        assert data.held_out is not None
    assert [after.test.content(index) for index in range(4)] == [
        before.test.content(index) for index in range(4)
    ]


def test_images_for_testing_without_classes_are_left_out_and_told(tool, photos, tmp_path, caplog):
    (photos / "test").mkdir()
    (photos / "test" / "1.png").write_bytes(png("val", 1))
    assert run(tool, photos, tmp_path / "out") == 0
    assert "not used: " in caplog.text and "/test: no class folders" in caplog.text
    assert not list((tmp_path / "out").glob("test*"))


def test_an_archive_without_parts_is_one(tool, tmp_path):
    for name, split in (("photos.tar", "train"), ("my val.tar", "val")):
        with tarfile.open(tmp_path / name, "w") as archive:
            for index in range(6):
                add(archive, f"{'ab'[index % 2]}/{index}.png", png("val", index))
        assert run(tool, tmp_path / name, tmp_path / split) == 0
        assert [path.name for path in sorted((tmp_path / split).glob("*.tar"))] == [
            f"{split}-000000.tar"
        ]
        assert len(load_split(tmp_path / split, split)) == 6


def test_larger_images_are_brought_down(tool, photos, tmp_path):
    out = tmp_path / "out"
    assert run(tool, photos, out, "--size", 45, "--quality", 80) == 0
    found = samples(out / "train-000000.tar")
    assert [*found] == [
        *("00000000_1.jpg", "00000000_1.cls", "00000001_2.jpg", "00000001_2.cls"),
        *("00000002_small.jpg", "00000002_small.cls"),
    ]
    assert found["00000002_small.jpg"] == (photos / "train/b/small.jpg").read_bytes()
    assert [found[name] for name in found if name.endswith("cls")] == [b"0", b"0", b"1"]
    train, val = load_split(out, "train"), load_split(out, "val")
    shapes = [train.read(index).shape for index in range(3)] + [val.read(0).shape]
    assert shapes == [(45, 60, 3), (60, 45, 3), (40, 70, 3), (56, 45, 3)]
    upright = cv2.imread(str(photos / "train/a/2.jpg"))
    expected = cv2.resize(upright, (45, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(train.read(1).astype(int) - expected).mean() < 12 < expected.std() / 3
    direct = cv2.imencode(".jpg", expected, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    assert train.content(1) == direct
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shards"]["train"][0]["as_they_were"] == 1
    assert val.paths[0].endswith(": 00000000_x.jpg")


def test_archives_without_files_become_png(tool, tmp_path):
    source = tmp_path / "cifar-10-python.tar.gz"
    source.write_bytes(packed(cifar10_files(2)))
    assert run(tool, source, tmp_path / "out") == 0
    for split in LABELS:
        expected, found = load_split(source, split), load_split(tmp_path / "out", split)
        assert found.classes == expected.classes
        np.testing.assert_array_equal(found.labels, expected.labels)
        for index in range(len(expected)):
            np.testing.assert_array_equal(found.read(index), expected.read(index))


def test_a_data_set_for_testing_alone(tool, tmp_path):
    (tmp_path / "list.csv").write_text("1.png,b,val\n2.png,a,val\n")
    for index in (1, 2):
        (tmp_path / f"{index}.png").write_bytes(png("val", index))
    assert run(tool, tmp_path / "list.csv", tmp_path / "out") == 0
    folder = load_split(tmp_path / "out", "val")
    assert folder.classes == ("a", "b") and folder.labels.tolist() == [1, 0]
    assert not list((tmp_path / "out").glob("train*"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_archive_of_one_split(tool, split, tmp_path):
    """As a folder of one."""
    tree(tmp_path / "src")
    with tarfile.open(tmp_path / "one.tar", "w") as archive:
        archive.add(tmp_path / "src" / split, split)
    assert run(tool, tmp_path / "one.tar", tmp_path / "out") == 0
    folder = load_split(tmp_path / "out", split)
    assert folder.labels.tolist() == LABELS[split] and folder.classes == CLASSES
    assert list((tmp_path / "out").glob("*.tar")) == [tmp_path / "out" / f"{split}-000000.tar"]


def test_it_goes_on_where_it_was_interrupted(tool, tmp_path, monkeypatch):
    source, out = tree(tmp_path / "src"), tmp_path / "out"
    assert run(tool, source, tmp_path / "whole", "--images-per-shard", 3) == 0
    write, written = tool._write_shard, []

    def interrupted(path, *rest):
        written.append(path.name)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(path, *rest)

    monkeypatch.setattr(tool, "_write_shard", interrupted)
    assert run(tool, source, out, "--images-per-shard", 3) != 0
    (out / "train-000001.tar").write_bytes(b"cut")
    written[:] = [None] * 10
    assert run(tool, source, out, "--images-per-shard", 3) == 0
    assert "train-000000.tar" not in written and "train-000001.tar" in written
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_killed_at_any_time(tmp_path):
    """What a shard's name promises is there, whole."""
    source, out = tree(tmp_path / "src"), tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools" / "prepare_data.py"), str(source), str(out)]
    process = subprocess.Popen([*command, "--images-per-shard", "1"])
    deadline = time.monotonic() + 50
    while not list(out.glob("train-*.tar")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    shards = sorted(out.glob("*.tar"))
    assert shards
    for path in shards:
        split, number = path.stem.split("-")
        (content,) = (raw for name, raw in samples(path).items() if name.endswith("png"))
        np.testing.assert_array_equal(
            cv2.imdecode(np.frombuffer(content, np.uint8), 1), pixels(split, int(number))
        )


def test_another_folder_or_other_settings(tool, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(tool, photos, out) == 0
    for flags, differ in ((("--size", 64), "packing"), (("--quality", 5), "packing")):
        assert run(tool, photos, out, *flags) == 1
        assert f"{out}: was begun with other {differ}; give a new folder" in capsys.readouterr().err
    (photos / "train/b/more.jpg").write_bytes(encoded(picture((40, 70), 3)))
    assert run(tool, photos, out) == 1
    assert "was begun with other images" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert run(tool, photos, tmp_path / "other") == 1
    assert "other: is not empty; give a new folder" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(tool, photos, tmp_path / "o", "--quality", 101)
    assert "--quality: expected 1 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["[", [], {"train": 1}, {"train": [1]}, {"train": [{}]}, "pipe"])
def test_a_manifest_that_is_damaged(tool, change, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(tool, photos, out) == 0
    manifest = out / "manifest.json"
    content = json.loads(manifest.read_text())
    if change == "pipe":
        manifest.unlink()
        os.mkfifo(manifest)
    else:
        manifest.write_text("[" if change == "[" else json.dumps({**content, "shards": change}))
    assert run(tool, photos, out) == 1
    told = "cannot be written: it is no regular file" if change == "pipe" else "is damaged"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("place", ["", "packed", "train/packed"])
def test_a_place_in_the_data_set_is_refused(tool, place, photos, capsys):
    before = sorted(photos.rglob("*"))
    assert run(tool, photos, photos / place) == 2
    assert f"lies in the data set {photos}" in capsys.readouterr().err
    assert sorted(photos.rglob("*")) == before


def test_two_at_once(tool, photos, tmp_path, monkeypatch, capsys):
    """The second is refused while the first is at work, and says why; then nothing keeps it out."""
    out, codes, write = tmp_path / "out", [], tool._write_shard

    def meanwhile(*words):
        codes.append(run(tool, photos, out))
        return write(*words)

    monkeypatch.setattr(tool, "_write_shard", meanwhile)
    assert run(tool, photos, out) == 0
    assert codes == [1, 1]
    assert f"{out}: another process packs into it" in capsys.readouterr().err
    assert run(tool, photos, out) == 0


def test_a_damaged_image_is_named(tool, photos, tmp_path, capsys):
    (photos / "train/b/zz.jpg").write_bytes(encoded(picture((40, 70), 3))[:300])
    assert run(tool, photos, tmp_path / "out") == 1
    assert f"{photos}/train/b/zz.jpg: the image is cut short" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.tar*"))


def test_names_that_no_shard_can_have(tool, tmp_path):
    """What is hostile in a name stays out of the archive."""
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as target:
        for name in ("val/c/../../../etc/x.png", "val/c/.. -rf \x1b[31m.png"):
            member = tarfile.TarInfo(name.replace("/../../../etc", ""))
            member.size = len(png("val", 1))
            target.addfile(member, io.BytesIO(png("val", 1)))
    folder = load_split(archive, "val")
    keys = [tool._key(folder, index) for index in range(len(folder))]
    assert all(set(key) <= set("0123456789abcdefghijklmnopqrstuvwxyz_-") for key in keys)


@pytest.mark.parametrize("name", [b"a\nb", b"a\rb", b" b", b"\xef\xbb\xbfb", b"a\xffb"])
def test_classes_that_no_line_can_name(tool, name, tmp_path):
    """Read back, classes.txt would give other classes; then every later one has a wrong name."""
    folder = tmp_path / "src" / "val" / os.fsdecode(name)
    folder.mkdir(parents=True)
    (folder / "1.png").write_bytes(png("val", 1))
    with pytest.raises(DataError, match="the class '.*b' has .*; rename it"):
        tool.pack(str(tmp_path / "src"), tmp_path / "out", tool.Packing(), 1, lambda *_: None)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told(tool, photos, tmp_path, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tool.tarfile, "open", full)
    with pytest.raises(UserError, match="train-000000.tar: cannot be written: No space left"):
        tool.pack(str(photos), tmp_path / "out", tool.Packing(), 1, lambda *_: None)
    assert not list((tmp_path / "out").glob("*.part"))
