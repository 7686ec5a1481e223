import csv
import errno
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from official.vision.classification.engine.scoring import ClassScore
from official.vision.classification.errors import UsageError, UserError
from official.vision.classification.prediction import outputs
from official.vision.classification.prediction.images import ImageFile, PreparedImage
from official.vision.classification.prediction.outputs import (
    CsvFile,
    FeaturesFile,
    JsonLinesFile,
    Pictures,
    Prediction,
    picture_targets,
    spare_images,
)

NASTY = ("plain.jpg", 'comma, "quote".jpg', "two\nlines\r.jpg", "猫.jpg", os.fsdecode(b"\xff.jpg"))


def seven(value):
    """The shortest text of the nearest number with seven significant digits."""
    return repr(float(np.format_float_positional(value, 7, unique=False, fractional=False)))


def prediction(path, number=0, tta=False, feature=None):
    """Two guesses of numbers that no short decimal is."""
    rng = np.random.default_rng(number)
    first = [
        ClassScore(7, "Persian_cat", float(rng.random())),
        ClassScore(3, "a, b", float(rng.random())),
    ]
    second = [ClassScore(1, "lynx", float(rng.random())), ClassScore(7, "Persian_cat", 1e-30)]
    image = PreparedImage(ImageFile(path, Path(path).name), number, None, None, (0, 0, 1, 1))
    return Prediction(image, first, second if tta else None, feature)


@pytest.mark.parametrize("tta", [False, True])
def test_csv_is_read_back_as_it_was(tmp_path, tta):
    path = tmp_path / "out.csv"
    rows = [prediction(name, number, tta) for number, name in enumerate(NASTY)]
    file = CsvFile(path, 2, tta)
    for row in rows:
        file.add(row)
    assert not path.exists()
    file.close()
    assert list(tmp_path.iterdir()) == [path]
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as text:
        read = list(csv.DictReader(text))
    assert [row["image"] for row in read] == list(NASTY)
    for found, row in zip(read, rows):
        told = [("", row.top)] + ([("tta_", row.tta)] if tta else [])
        assert len(found) == 1 + 6 * len(told)
        for prefix, guesses in told:
            for k, guess in enumerate(guesses, 1):
                assert found[f"{prefix}class_{k}"] == guess.name
                assert int(found[f"{prefix}index_{k}"]) == guess.index
                assert found[f"{prefix}probability_{k}"] == seven(guess.probability)


def test_csv_columns(tmp_path):
    file = CsvFile(tmp_path / "out.csv", 1, True)
    file.close()
    assert (tmp_path / "out.csv").read_bytes() == (
        b"image,class_1,index_1,probability_1,tta_class_1,tta_index_1,tta_probability_1\r\n"
    )


def test_json_lines_are_read_back_as_they_were(tmp_path):
    rows = [prediction(name, number, number % 2 == 0) for number, name in enumerate(NASTY)]
    file = JsonLinesFile(tmp_path / "out.jsonl")
    for row in rows:
        file.add(row)
    file.close()
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row.to_dict() for row in rows]
    assert json.loads(lines[0]) == {
        "image": "plain.jpg",
        "top": [{**vars(s), "probability": float(seven(s.probability))} for s in rows[0].top],
        "tta": [{**vars(s), "probability": float(seven(s.probability))} for s in rows[0].tta],
    }
    assert max(len(seven(s.probability)) for s in rows[0].top) == 9  # "0." and seven digits
    assert "tta" not in json.loads(lines[1])


def test_features_are_read_back_as_they_were(tmp_path):
    features = np.random.default_rng(0).normal(size=(5, 512)).astype(np.float32)
    file = FeaturesFile(tmp_path / "out.npz")
    for number, name in enumerate(NASTY):
        file.add(prediction(name, feature=features[number]))
    assert list(tmp_path.iterdir()) == []
    file.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "out.npz"]
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert sorted(found) == ["features", "images"]
        assert found["features"].dtype == np.float32
        assert np.array_equal(found["features"], features)
        assert found["images"].tolist() == list(NASTY)


def test_no_features(tmp_path):
    FeaturesFile(tmp_path / "out.npz").close()
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["features"].shape == (0, 0)
        assert found["images"].tolist() == []


@pytest.mark.parametrize("kind", [JsonLinesFile, lambda path: CsvFile(path, 2, False)])
def test_what_is_there_when_it_ends_early_is_kept_apart(tmp_path, kind, caplog):
    path = tmp_path / "out"
    path.write_text("older")
    kind(path).abandon()
    assert list(tmp_path.iterdir()) == [path] and not caplog.text
    file = kind(path)
    file.add(prediction("a.jpg"))
    file.abandon()
    assert path.read_text() == "older"
    assert "a.jpg" in (tmp_path / "out.part").read_text()
    assert f"{path}: the rows so far are in {path}.part" in caplog.text


def test_no_features_are_left_when_it_ends_early(tmp_path):
    file = FeaturesFile(tmp_path / "out.npz")
    file.add(prediction("a.jpg", feature=np.zeros(3)))
    file.abandon()
    assert list(tmp_path.iterdir()) == []


class FullDisk:
    """A file that nothing can be written to."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self):
        self.file.close()


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    rows, features = CsvFile(tmp_path / "out.csv", 2, False), FeaturesFile(tmp_path / "out.npz")
    rows._file, features._rows = FullDisk(rows._file), FullDisk(features._rows)
    target = tmp_path / "a.png"
    pictures = Pictures("--save-image", [target], lambda _: np.zeros((2, 2, 3), np.uint8))

    def write_bytes(path, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(type(tmp_path), "write_bytes", write_bytes)
    for sink, name in ((rows, "out.csv"), (features, "out.npz"), (pictures, "a.png")):
        message = f"^--[a-z-]+ {tmp_path / name}: cannot be written: No space left on device$"
        with pytest.raises(UserError, match=message):
            sink.add(prediction("a.jpg", feature=np.zeros(3)))
        sink.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_features_file_that_cannot_be_finished_is_not_left(tmp_path, monkeypatch):
    file = FeaturesFile(tmp_path / "out.npz")
    file.add(prediction("a.jpg", feature=np.zeros(3)))

    def fail(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs.np.lib.format, "write_array", fail)
    with pytest.raises(UserError, match="out.npz: cannot be written: No space left"):
        file.close()
    file.abandon()
    assert list(tmp_path.iterdir()) == []


def test_names_of_pictures(tmp_path):
    images = [
        ImageFile(str(tmp_path / f"in{number}" / name), name)
        for number, name in enumerate(
            ["a.jpg", "sub/a.JPEG", "a.webp", "a.png", "b/a.png", "a.bmp", "a-2.png", "a.JPG"]
        )
    ]
    found = picture_targets("--save-image", str(tmp_path / "out"), images, False)
    assert [str(path.relative_to(tmp_path / "out")) for path in found] == [
        *("a.jpg", "sub/a.jpg", "a.png", "a-2.png", "b/a.png", "a-3.png", "a-2-2.png", "a-2.jpg")
    ]
    assert len(set(found)) == len(found)


def test_pictures_are_written_below_new_folders(tmp_path):
    targets = [tmp_path / "out" / "x" / "0.png", tmp_path / "out" / "1.png"]
    pictures = Pictures(
        "--save-image", targets, lambda p: np.full((2, 3, 3), p.image.number, np.uint8)
    )
    pictures.add(prediction("a.jpg", 0))
    pictures.add(prediction("b.jpg", 1))
    pictures.close()
    for number, target in enumerate(targets):
        assert (cv2.imread(str(target)) == number).all()


@pytest.mark.parametrize(
    ("where", "single", "message"),
    [
        ("a.gif", True, "the name must end in .png or .jpg"),
        ("no/a.png", True, "there is no folder .*/no; make it first"),
        ("folder.png", True, "is a folder; give a file's name"),
        ("a.png", False, "there are several images; give a folder's name"),
        ("text", False, "there are several images; give a folder's name"),
        ("no/out", False, "there is no folder .*/no; make it first"),
    ],
)
def test_places_where_pictures_cannot_go(tmp_path, where, single, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text").touch()
    images = [ImageFile("photo.jpg", "photo.jpg"), ImageFile("other.jpg", "other.jpg")]
    images = images[:1] if single else images
    with pytest.raises(UsageError, match=f"^--saliency {tmp_path / where}: .*{message}"):
        picture_targets("--saliency", str(tmp_path / where), images, single)


def test_a_folder_that_is_there_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    images = [ImageFile("a.jpg", "a.jpg"), ImageFile("b.jpg", "b.jpg")]
    found = picture_targets("--save-image", str(tmp_path / "out"), images, False)
    assert found == [tmp_path / "out" / "a.jpg", tmp_path / "out" / "b.jpg"]


def test_images_are_not_overwritten(tmp_path):
    """By any name: of a file itself, of a link to it, through a linked folder."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "photo.jpg").symlink_to(tmp_path / "in" / "photo.jpg")
    images = [ImageFile(str(tmp_path / "in" / "photo.jpg"), "photo.jpg")]
    for place in ("in", "link", "."):
        targets = picture_targets("--saliency", str(tmp_path / place), [*images, *images], False)
        message = f"--saliency {tmp_path / place}/photo.jpg: is one of the images to be named"
        with pytest.raises(UsageError, match=message):
            spare_images({"--csv": [tmp_path / "in" / "out.csv"], "--saliency": targets}, images)
    spare_images({"--csv": [tmp_path / "in" / "out.csv"]}, images)


@pytest.mark.parametrize("name", ["=HYPERLINK(1).jpg", "+x.png", "-y", "@z", "\tw"])
def test_no_cell_is_a_formula(tmp_path, name):
    file = CsvFile(tmp_path / "out.csv", 1, False)
    image = PreparedImage(ImageFile(name, name), 0, None, None, (0, 0, 1, 1))
    file.add(Prediction(image, [ClassScore(0, name, 0.5)]))
    file.close()
    with (tmp_path / "out.csv").open(newline="") as text:
        _, row = csv.reader(text)
    assert row == [f"'{name}", f"'{name}", "0", "0.5"]
