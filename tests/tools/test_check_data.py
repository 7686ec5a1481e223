"""The tool as a user runs it."""

import json

import cv2
import numpy as np
import pytest

from tests.scripts import load_script
from tests.vision.classification.data.cifar_files import cifar10_files, packed

tool = load_script("tools/check_data.py")


@pytest.fixture(autouse=True)
def _threads_of_opencv():
    threads = cv2.getNumThreads()
    yield
    cv2.setNumThreads(threads)


@pytest.fixture()
def images(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                picture = rng.integers(0, 256, (8, 8, 3), np.uint8)
                cv2.imwrite(str(folder / f"{index}.png"), picture)
    return tmp_path / "set"


def test_a_sound_data_set(images, script):
    done = script("tools/check_data.py", "--data", images, "-j", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "split  images  classes  fewest  most  unreadable  damaged",
        "train       6        2       3     3           0        0",
        "val         4        2       2     2           0        0",
        "",
        "class  train  val",
        "cat        3    2",
        "dog        3    2",
        f"{images}: sound",
    ]


def test_a_damaged_data_set(images, capsys, tmp_path):
    (images / "train" / "cat" / "1.png").write_bytes(b"x")
    (images / "val" / "dog" / "0.png").write_bytes((images / "train/dog/2.png").read_bytes())
    out = tmp_path / "report.json"
    assert tool.main(["-d", str(images), "--json", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["train", "6", "2", "3", "3", "1", "0"]
    copies = (f"{images}/train/dog/2.png", f"{images}/val/dog/0.png")
    assert lines[-3:] == [
        f"problem: {images}/train/cat/1.png: not an image of a format that is read (JPEG, PNG, "
        "WebP, BMP, TIFF, PNM, GIF); fetch the file again",
        "warning: 1 of 4 val images are in train too, such as {1}, which is {0}".format(*copies),
        f"{images}: not usable as it is; --skip-broken goes on without those images",
    ]
    found = json.loads(out.read_text())
    assert found == {
        "data": str(images),
        "sound": False,
        "counts": {"train": {"cat": 3, "dog": 3}, "val": {"cat": 2, "dog": 2}},
        "unreadable": {"train": [lines[-3][len("problem: ") :]], "val": []},
        "remarks": {"train": [], "val": []},
        "damaged": {"train": 0, "val": 0},
        "problems": [],
        "warnings": [lines[-2][len("warning: ") :]],
        "copies": [list(copies)],
    }


def test_damaged_images_are_counted(images, capsys):
    pytest.importorskip("simplejpeg")
    data = cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 256, (99, 99, 3), np.uint8))[1]
    data[len(data) // 2 :][:300] = 0
    (images / "val" / "dog" / "0.jpg").write_bytes(data.tobytes())
    assert tool.main(["--data", str(images)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["val", "5", "2", "2", "3", "0", "1"]
    assert lines[-2].startswith(f"warning: {images}/val/dog/0.jpg: a damaged JPEG image (")
    assert lines[-1] == f"{images}: usable, but 1 images are damaged"


def test_one_split(images, capsys):
    (images / "train").rename(images / "other")
    assert tool.main(["--data", str(images)]) == 1
    text = capsys.readouterr().out
    assert f"problem: {images}/train: no such folder" in text and "val    " in text
    assert tool.main(["--data", str(images), "--split", "val"]) == 0
    assert "problem" not in capsys.readouterr().out


def test_no_data_set_at_all(tmp_path, capsys):
    assert tool.main(["--data", str(tmp_path / "no")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["problem", "problem", str(tmp_path / "no")]


def test_an_archive(tmp_path, capsys):
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(packed(cifar10_files(4)))
    assert tool.main(["--data", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:2] == ["train", "20"] and rows[2][:2] == ["val", "6"]
    assert sum(int(row[1]) for row in rows[5:15]) == 20
    path.write_bytes(path.read_bytes()[:20_000])
    assert tool.main(["--data", str(path)]) == 1
    assert f"problem: {path}: the archive is cut short" in capsys.readouterr().out


def test_what_is_found_is_not_written_among_the_images(images, capsys):
    assert tool.main(["-d", str(images), "--json", str(images / "train" / "report.json")]) == 2
    assert "lies in the data set" in capsys.readouterr().err
    assert not (images / "train" / "report.json").exists()


def test_long_lists_are_cut_and_json_has_all(tmp_path, capsys):
    lines = [f"{index}.png,{index:02},val" for index in range(30)]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    out = tmp_path / "o.json"
    flags = ["--data", str(tmp_path / "l.csv"), "--split", "val", "--json", str(out)]
    assert tool.main(flags) == 1
    text = capsys.readouterr().out.splitlines()
    assert text[0].startswith("split") and text[2].startswith("problem: ")  # no line per class
    assert len([line for line in text if "no such image" in line]) == 20
    assert text[-2] == "problem: … and 10 more; --json FILE has all"
    assert len(json.loads(out.read_text())["unreadable"]["val"]) == 30


def test_names_cannot_steer_the_terminal(tmp_path, capsys):
    name = "\x1b[2Jx"
    (tmp_path / "set" / "val" / name).mkdir(parents=True)
    (tmp_path / "set" / "val" / name / "\x1b]0;.png").write_bytes(b"")
    (tmp_path / "set" / "val" / name / "\udcff.png").write_bytes(b"")
    out = tmp_path / "o.json"
    flags = ["--data", str(tmp_path / "set"), "--split", "val", "--json", str(out)]
    assert tool.main(flags) == 1
    text = capsys.readouterr().out
    assert "\x1b" not in text and "\\x1b[2Jx" in text and "\\udcff.png: the file is empty" in text
    assert name in json.loads(out.read_text())["counts"]["val"]


def test_what_cannot_be_written_is_told_first(tmp_path, capsys):
    assert tool.main(["--data", str(tmp_path), "--json", str(tmp_path / "no" / "o.json")]) == 2
    text = capsys.readouterr()
    assert "there is no folder" in text.err and text.out == ""


class Screen:
    def __init__(self):
        self.bars = []

    def start_bar(self, title, total):
        self.bars.append([title, total, 0])

    def advance(self, count):
        self.bars[-1][2] += count

    def stop_bar(self):
        pass


def test_the_bar_has_every_image_of_each_split(monkeypatch):
    bar = tool.SplitBar("Read")
    bar.console = Screen()
    for split, total in (("train", 70), ("val", 100)):
        for done in (32, 64, total):
            bar(split, done, total)
    assert bar.console.bars == [["Read train", 70, 70], ["Read val", 100, 100]]
