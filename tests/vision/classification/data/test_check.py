import shutil
import threading
import time

import cv2
import numpy as np
import pytest

from official.vision.classification.data import check
from official.vision.classification.data.check import check_data
from official.vision.classification.data.folder import load_split
from official.vision.classification.errors import DataError
from tests.vision.classification.data.cifar_files import batch, cifar10_files, unpack

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def _threads_of_opencv():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


def silent(split, done, total):
    pass


def run(data, splits=("train", "val"), workers=3, progress=silent):
    return check_data(str(data), splits, workers, progress)


@pytest.fixture()
def images(tmp_path):
    """Two splits of three classes; images differ from each other."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (40, 20, 7)), ("val", (3, 1, 2))):
        for name, count in zip("abc", counts):
            for index in range(count):
                path = tmp_path / split / name / f"{index:02}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), rng.integers(0, 256, (6, 5, 3), np.uint8))
    return tmp_path


@pytest.mark.parametrize("workers", [1, 4])
def test_a_sound_data_set(images, workers):
    told = []
    report = run(images, workers=workers, progress=lambda *values: told.append(values))
    assert report.counts == {"train": {"a": 40, "b": 20, "c": 7}, "val": {"a": 3, "b": 1, "c": 2}}
    assert report.is_sound
    assert report.unreadable == {"train": [], "val": []}
    assert (report.problems, report.warnings, report.copies) == ([], [], [])
    for split, total in (("train", 67), ("val", 6)):
        steps = [done for name, done, of in told if name == split and of == total]
        assert steps == sorted(set(steps)) and steps[-1] == total
    assert len([step for step in told if step[0] == "train"]) > 1


def damaged(images):
    """What is wrong with which file."""
    whole = (images / "train" / "a" / "01.png").read_bytes()
    broken = {
        "train/a/00.png": (b"", "the file is empty"),
        "train/a/39.png": (whole[:-9], "the image is cut short"),
        "train/b/07.png": (b"<html></html>", "not an image"),
        "val/c/00.png": (None, "no such image"),
        "train/c/new.jpg": (b"GIF89a" + bytes(50), "the image is damaged or cut short"),
    }
    for name, (data, _) in broken.items():
        if data is None:
            (images / name).unlink()
            (images / name).symlink_to("nowhere")
        else:
            (images / name).write_bytes(data)
    return {name: reason for name, (_, reason) in broken.items()}


@pytest.mark.parametrize("workers", [1, 4])
def test_every_damaged_file_is_named_with_its_reason(images, workers):
    broken = damaged(images)
    report = run(images, workers=workers)
    found = [text for texts in report.unreadable.values() for text in texts]
    assert len(found) == len(broken)
    for text, name in zip(found, sorted(broken)):  # in the order of the data set
        assert text.startswith(f"{images / name}: {broken[name]}")
    assert not report.is_sound and not report.problems
    assert len(report.unreadable["val"]) == 1
    assert report.counts["train"] == {"a": 40, "b": 20, "c": 8}


def damaged_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    data = cv2.imencode(".jpg", cv2.GaussianBlur(noise, (0, 0), 2))[1].tobytes()
    middle = len(data) // 2
    return data[:middle] + bytes(400) + data[middle + 400 :]


def test_damaged_images_are_named_and_counted(images):
    pytest.importorskip("simplejpeg")
    for name in ("train/a/new.jpg", "train/b/new.jpg", "val/c/new.jpg"):
        (images / name).write_bytes(damaged_jpeg() + name.encode())
    cv2.imwrite(str(images / "val/a/deep.png"), np.full((5, 5), 4000, np.uint16))
    report = run(images)
    assert report.damaged == {"train": 2, "val": 1} and report.is_sound
    assert [text.split(":")[0] for text in report.remarks["train"]] == [
        f"{images}/train/{name}/new.jpg" for name in "ab"
    ]
    deep, damaged = report.remarks["val"]
    assert "taken as 12 bits" in deep and damaged.startswith(f"{images}/val/c/new.jpg: a damaged")


def test_a_file_that_goes_away_while_it_is_read(images, monkeypatch):
    """Between decoding and hashing."""
    folder = load_split(images, "val")

    def gone(self, index):
        raise DataError(f"{self.paths[index]}: no such image")

    monkeypatch.setattr(type(folder), "content", gone)
    report = run(images, ("val",))
    assert report.unreadable["val"][0] == f"{folder.paths[0]}: no such image"
    assert len(report.unreadable["val"]) == 6 and not report.copies


def test_classes_that_do_not_agree(images):
    (images / "val" / "b").rename(images / "val" / "bb")
    report = run(images)
    (problem,) = report.problems
    assert problem.startswith(f"{images}/val: class folders (bb) are not among the 3")
    assert not report.is_sound
    assert report.counts["val"] == {"a": 3, "bb": 1, "c": 2}


def test_a_class_without_validation_images(images):
    for path in (images / "val" / "b").iterdir():
        path.unlink()
    report = run(images)
    assert report.problems == [f"{images}/val/b: no images; remove the folder or fill it"]
    assert list(report.counts) == ["train"]
    (images / "val" / "b").rmdir()
    report = run(images)
    assert report.is_sound
    assert report.warnings == [f"{images}/val: no val images of 1 classes (b)"]
    assert report.counts["val"] == {"a": 3, "b": 0, "c": 2}


def test_a_split_that_is_not_there(images):
    (images / "train").rename(images / "elsewhere")
    report = run(images)
    (problem,) = report.problems
    assert problem.startswith(f"{images}/train: no such folder")
    assert list(report.counts) == ["val"] and not report.is_sound
    assert run(images, ("val",)).is_sound


def test_copies_are_found_by_content(images):
    """Wherever they are and whatever they are called; not among images of one split."""
    for source, target in [
        ("train/a/05.png", "val/c/09.png"),
        ("train/a/05.png", "val/a/again.png"),
        ("train/c/02.png", "val/b/00.png"),
        ("train/b/02.png", "train/b/03.png"),
        ("val/a/00.png", "val/a/01.png"),
    ]:
        (images / target).write_bytes((images / source).read_bytes())
    report = run(images)
    assert sorted(report.copies) == [
        (f"{images}/train/a/05.png", f"{images}/val/a/again.png"),
        (f"{images}/train/a/05.png", f"{images}/val/c/09.png"),
        (f"{images}/train/c/02.png", f"{images}/val/b/00.png"),
    ]
    (warning,) = report.warnings
    assert warning.startswith("3 of 8 val images are in train too, such as ")
    assert report.is_sound


def test_empty_files_are_no_copies_of_each_other(images):
    for name in ("train/a/00.png", "val/a/00.png"):
        (images / name).write_bytes(b"")
    report = run(images)
    assert not report.copies and len(report.unreadable["val"]) == 1


def test_files_that_are_passed_over_are_told(images):
    for name in ("train/a/notes.txt", "train/b/1.jpg.part", "val/a/.hidden"):
        (images / name).write_bytes(b"x")
    report = run(images)
    (warning,) = report.warnings
    assert warning.startswith(f"{images}/train: 2 files are not named as images, and not used")
    assert f"{images}/train/a/notes.txt" in warning and report.is_sound


def test_an_archive_of_cifar(tmp_path):
    files = cifar10_files(3)
    copy = dict(files)
    copy["cifar-10-batches-py/test_batch"] = batch(4, 3, 10)  # the seed of data_batch_4
    root = unpack(copy, tmp_path)
    (at,) = [k for k, v in files.items() if v == batch(4, 3, 10)]
    report = run(root)
    assert sum(report.counts["train"].values()) == 15
    assert [one for one, _ in report.copies] == [
        f"{root}: {at.split('/')[1]}, row {row}" for row in range(3)
    ]
    assert report.is_sound


def test_a_csv_list_with_missing_images(images):
    rows = ["train/a/00.png,x,train", "gone.png,x,train", "val/a/00.png,y,val"]
    (images / "l.csv").write_text("\n".join(rows))
    report = run(images / "l.csv")
    assert report.unreadable["train"] == [f"{images}/gone.png: no such image"]
    assert report.counts == {"train": {"x": 2, "y": 0}, "val": {"x": 0, "y": 1}}
    assert len(report.warnings) == 2  # classes without images


def test_threads_share_the_work_and_leave(images, monkeypatch):
    """As many at a time as there are workers."""
    busy, most, lock = [0], [0], threading.Lock()
    examine = check._examine

    def slow(folder, index):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.01)
        with lock:
            busy[0] -= 1
        return examine(folder, index)

    monkeypatch.setattr(check, "_examine", slow)
    monkeypatch.setattr(check, "_CHUNK", 2)
    before = set(threading.enumerate())
    run(images, workers=3)
    assert most[0] == 3
    assert set(threading.enumerate()) <= before


def test_an_interrupt_does_not_wait_for_all_images(images, monkeypatch):
    seen = []

    def count(folder, index):
        seen.append(index)
        time.sleep(0.02)
        return b"", "x", []

    def interrupt(split, done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "_examine", count)
    monkeypatch.setattr(check, "_CHUNK", 1)
    with pytest.raises(KeyboardInterrupt):
        run(images, workers=2, progress=interrupt)
    assert len(seen) < 30


def test_opencvs_own_threads_are_off(images):
    cv2.setNumThreads(4)
    run(images, ("val",))
    assert cv2.getNumThreads() == 1


def test_images_for_testing_are_looked_at_too(images):
    shutil.copytree(images / "val", images / "test")
    (images / "test" / "b" / "bad.png").write_bytes(b"x")
    report = run(images, ("train", "val", "test"))
    assert report.counts["test"] == {"a": 3, "b": 2, "c": 2} and not report.is_sound
    assert len(report.unreadable["test"]) == 1
    (warning,) = report.warnings
    assert warning.startswith("6 of 7 test images are in val too, such as ")
    (images / "test" / "new").mkdir()
    (images / "test" / "b" / "bad.png").rename(images / "test" / "new" / "bad.png")
    report = run(images, ("train", "val", "test"))
    assert report.is_sound and [*report.counts] == ["train", "val"]
    assert "not used: " in report.warnings[0] and "(new) are not among" in report.warnings[0]


def test_what_a_run_can_use_is_sound(images):
    """A run holds images out where there are none for validation."""
    (images / "val").rename(images / "test")
    report = run(images, ("train", "val", "test"))
    assert report.is_sound and [*report.counts] == ["train", "test"]
    (warning,) = report.warnings
    assert "/val: no such folder" in warning and "training holds images out" in warning
    shutil.rmtree(images / "test")
    assert run(images, ("train", "val", "test")).is_sound
    (images / "train").rename(images / "val")
    report = run(images, ("train", "val", "test"))
    (problem,) = report.problems
    assert not report.is_sound and "/train: no such" in problem
    assert run(images, ("val",)).is_sound and not run(images, ("test",)).is_sound
