import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.scripts import load_script

shapes = load_script("tools/make_shapes.py")


def make(out, train=23, val=12, seed=5, **more):
    values = {"train": train, "val": val, "seed": seed, **more}
    flags = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    try:
        return shapes.main([str(out), *flags])
    except SystemExit as stop:
        return stop.code


def contents(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_the_folder_is_that_of_imagenet_with_balanced_classes(tmp_path, capsys):
    assert make(tmp_path / "new" / "set") == 0
    out = tmp_path / "new" / "set"
    text, errors = capsys.readouterr()
    assert text == f"{out}: 23 train and 12 val images of 10 classes, 32x32 pixels\n"
    assert errors == ""
    assert sorted(p.name for p in out.iterdir()) == ["train", "val"]
    for split, least, total in (("train", 2, 23), ("val", 1, 12)):
        folders = sorted((out / split).iterdir())
        assert tuple(p.name for p in folders) == shapes.CLASSES
        counts = [len(list(p.iterdir())) for p in folders]
        assert sum(counts) == total
        assert set(counts) == {least, least + 1}


def test_files_depend_on_seed_split_and_number_alone(tmp_path):
    assert make(tmp_path / "a") == make(tmp_path / "b") == 0
    assert make(tmp_path / "more", train=41, val=30) == make(tmp_path / "other", seed=6) == 0
    first, other = contents(tmp_path / "a"), contents(tmp_path / "other")
    assert first == contents(tmp_path / "b")
    more = contents(tmp_path / "more")
    assert len(more) == 71
    assert first == {name: more[name] for name in first}
    assert all(other[name] != first[name] for name in first)


def test_no_image_occurs_twice(tmp_path):
    make(tmp_path, train=200, val=200)
    pictures = [cv2.imread(str(path)) for path in tmp_path.rglob("*.png")]
    assert len({hashlib.sha256(picture.tobytes()).digest() for picture in pictures}) == 400


@pytest.mark.parametrize("size", [16, 32, 75])
def test_pictures_are_bgr_bytes_of_the_asked_size(tmp_path, size):
    for name in shapes.CLASSES:
        picture = shapes.render(name, np.random.default_rng(0), size)
        assert picture.shape == (size, size, 3)
        assert picture.dtype == np.uint8
    make(tmp_path, size=size)
    assert cv2.imread(str(tmp_path / "val" / "disc" / "00004.png")).shape == (size, size, 3)


def mask(name, radius=80.0, angle=0.0, hollow=False, edge=240):
    """A white shape on black as (edge, edge) booleans."""
    canvas = np.zeros((edge, edge, 3), np.uint8)
    middle = (edge - 1) / 2
    shapes.paint_shape(canvas, name, (middle, middle), radius, angle, (255, 255, 255), hollow)
    return canvas[:, :, 0] > 0


WIDTH, ARM, INNER = 2 * 0.95, 0.64, 0.42
AREAS = {  # of filled shapes in the unit circle, each by a formula of its own
    "arrow": 1.05 * 0.52 + 0.95 * 1.6 / 2,  # a shaft and a head
    "bolt": 0.4 * (1.24 - 0.97 / 3) + 0.8 * (0.97 / 1.5 - 0.3),  # a parallelogram, two triangles
    "cross": 2 * WIDTH * ARM - ARM**2,  # two bars less what they share
    "disc": np.pi,
    "heart": 180 * np.pi / 15.5**2,  # the known area of the curve
    "square": 2.0,
    "star": 10 * 0.5 * INNER * np.sin(np.pi / 5),  # ten triangles at the centre
    "triangle": 3 * np.sqrt(3) / 4,
}


@pytest.mark.parametrize("name", AREAS)
@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_filled_shapes_have_the_area_of_geometry(name, angle):
    drawn = mask(name, angle=angle)
    outline = cv2.findContours(drawn.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    border = cv2.arcLength(outline[0], True)
    # OpenCV paints every pixel the border touches: nearly half a pixel more along it, on average.
    assert drawn.sum() - 0.4 * border == pytest.approx(AREAS[name] * 80**2, abs=0.25 * border)


def test_a_crescent_is_a_disc_less_a_disc():
    y, x = (np.mgrid[:240, :240] - 119.5) / 80
    moon = (x**2 + y**2 < 1) & ((x - 0.48) ** 2 + y**2 > 0.8**2)
    assert (moon ^ mask("crescent")).sum() < 0.06 * moon.sum()


def test_a_ring_is_a_disc_with_a_hole_and_reaches_as_far():
    y, x = np.mgrid[:240, :240] - 119.5
    distance = np.hypot(x, y)[mask("ring", hollow=True)]
    assert distance.max() == pytest.approx(80, abs=1.5)
    assert distance.min() == pytest.approx(80 * (1 - shapes.STROKE), abs=1.5)
    assert shapes.HOLLOW_BY_CLASS["ring"]
    assert not shapes.HOLLOW_BY_CLASS["disc"]


def test_a_heart_stands_upright_and_turns_clockwise():
    upright = mask("heart")
    assert upright[:120].sum() > 1.5 * upright[120:].sum()
    assert (mask("heart", angle=np.pi / 2) ^ np.rot90(upright, -1)).mean() < 0.01


def test_a_shape_is_seen_against_its_background_either_way_round():
    """Brightness at the centre of a disc, against the four corners."""
    differences = []
    for seed in range(60):
        grey = shapes.render("disc", np.random.default_rng(seed), 32).mean(axis=2)
        corners = [grey[:3, :3], grey[:3, -3:], grey[-3:, :3], grey[-3:, -3:]]
        differences.append(np.median(grey[13:19, 13:19]) - np.median(corners))
    differences = np.array(differences)
    assert np.mean(np.abs(differences) > 60) > 0.95
    assert np.abs(differences).max() < 225
    assert 0.25 < np.mean(differences > 0) < 0.75


def load(out, split):
    """All pictures of a split as (N, 32 * 32 * 3) in 0..1 and labels (N,)."""
    paths = sorted((out / split).rglob("*.png"))
    pixels = np.stack([cv2.imread(str(path)).ravel() for path in paths]) / 255.0
    return pixels, np.array([shapes.CLASSES.index(path.parent.name) for path in paths])


def test_pixels_and_colours_alone_do_not_tell_the_classes(tmp_path):
    make(tmp_path, train=1000, val=300)
    (x, y), (x_val, y_val) = load(tmp_path, "train"), load(tmp_path, "val")
    x_val, x = x_val - x.mean(axis=0), x - x.mean(axis=0)
    targets = np.eye(10)[y] - 0.1
    for strength in (10, 100, 1000):  # ridge regression in its dual form
        dual = np.linalg.solve(x @ x.T + strength * np.eye(len(x)), targets)
        assert np.mean((x_val @ (x.T @ dual)).argmax(axis=1) == y_val) < 0.4
    colours, colours_val = (a.reshape(len(a), -1, 3).mean(axis=1) for a in (x, x_val))
    means = np.stack([colours[y == label].mean(axis=0) for label in range(10)])
    nearest = np.linalg.norm(colours_val[:, None] - means, axis=2).argmin(axis=1)
    assert np.mean(nearest == y_val) < 0.3


def test_a_repeated_command_completes_and_changes_nothing_else(tmp_path):
    make(tmp_path)
    whole = contents(tmp_path)
    kept = tmp_path / "train" / "arrow" / "00000.png"
    before = kept.stat()
    (tmp_path / "train" / "bolt" / "00001.png").unlink()  # what a killed run leaves
    (tmp_path / "train" / "bolt" / ".00001.png.part").write_bytes(b"half")
    assert make(tmp_path) == 0
    assert contents(tmp_path) == whole
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "train/dog/1.png", "train/arrow/cat.png", "val/bolt/00001.png"]
)
def test_a_folder_with_other_files_is_refused_untouched(tmp_path, capsys, foreign):
    path = tmp_path / foreign
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    assert make(tmp_path) == 1
    text, errors = capsys.readouterr()
    assert text == ""
    assert errors.startswith(f"make_shapes.py: error: {tmp_path}")
    assert errors.endswith(" is not of this data set; give an empty or a new folder\n")
    assert errors.count("\n") == 1
    assert contents(tmp_path) == {foreign: b"precious"}


def test_a_link_is_not_followed_out_of_the_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "elsewhere")
    assert make(tmp_path / "set") == 1
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("change", [{"seed": 6}, {"train": 22}, {"size": 16}])
def test_another_data_set_is_not_mixed_in(tmp_path, capsys, change):
    make(tmp_path)
    before = contents(tmp_path)
    assert make(tmp_path, **change) == 1
    assert "is not of this data set" in capsys.readouterr().err
    assert contents(tmp_path) == before


@pytest.mark.parametrize("broken", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_run_leaves_whole_files_only(tmp_path, capsys, monkeypatch, broken):
    write = Path.write_bytes

    def fail_at_the_sixth(path, data):
        if "00005" in path.name:
            write(path, data[:50])
            raise broken
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fail_at_the_sixth)
    code = make(tmp_path)
    monkeypatch.undo()
    errors = capsys.readouterr().err
    if isinstance(broken, OSError):
        assert (code, errors) == (
            1,
            f"make_shapes.py: error: {tmp_path}: No space left on device\n",
        )
    else:
        assert (code, errors.count("\n")) == (130, 1)
    left = contents(tmp_path)
    assert len(left) == 5
    assert make(tmp_path) == 0
    assert left.items() <= contents(tmp_path).items()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"train": 9}, "argument --train: '9' is not an integer from 10 to 100000"),
        ({"val": 9}, "argument --val: '9' is not an integer from 10 to 100000"),
        ({"val": "many"}, "argument --val: 'many' is not an integer"),
        ({"seed": -1}, "argument --seed: '-1' is not an integer from 0 to"),
        ({"size": 15}, "argument --size: '15' is not an integer from 16 to 512"),
        ({"sizes": 32}, "unrecognized arguments: --sizes 32"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(tmp_path, capsys, flags, message):
    assert make(tmp_path / "set", **flags) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"make_shapes.py: error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_an_unwritable_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path / "file", tmp_path / "file" / "set"):
        assert make(out) == 1
        errors = capsys.readouterr().err
        assert errors.startswith(f"make_shapes.py: error: {out}")
        assert errors.endswith(": Not a directory\n")
        assert errors.count("\n") == 1
    assert contents(tmp_path) == {"file": b"precious"}
