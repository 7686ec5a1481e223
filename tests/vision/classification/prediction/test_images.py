import io
import logging
import os
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from official.vision.classification.data.image import read_image
from official.vision.classification.data.transforms import EvalTransform, to_network_layout
from official.vision.classification.errors import DataError
from official.vision.classification.prediction import images as module
from official.vision.classification.prediction.images import (
    ImageFile,
    find_images,
    is_one_file,
    prepare_image,
    prepared_batches,
    read_bounded,
)
from official.vision.classification.preprocess import Preprocess


@pytest.fixture()
def photos(tmp_path, monkeypatch):
    """A working folder with photos/, which has images, other files and hidden ones."""
    monkeypatch.chdir(tmp_path)
    for name in (
        *("photos/b.jpg", "photos/a.PNG", "photos/notes.txt", "photos/.hidden.jpg"),
        *("photos/cats/2.jpeg", "photos/cats/10.webp", "photos/.cache/3.jpg"),
        *("photos/dogs/old/x.jpg", "other/x.jpg", "one[1].jpg"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def paths(*sources):
    return [image.path for image in find_images(sources)]


def names(*sources):
    return [image.name for image in find_images(sources)]


def test_a_folder_gives_what_is_in_it_and_below_in_order(photos):
    own = ["a.PNG", "b.jpg", "cats/10.webp", "cats/2.jpeg", "dogs/old/x.jpg"]
    assert names("photos") == own
    assert paths("photos") == [f"photos/{name}" for name in own]
    assert paths("photos/") == [f"photos/{name}" for name in own]


def test_patterns(photos):
    assert paths("photos/*") == ["photos/a.PNG", "photos/b.jpg"]
    assert paths("photos/**/*.jp*g") == [
        *("photos/b.jpg", "photos/cats/2.jpeg", "photos/dogs/old/x.jpg")
    ]
    assert names("*/x.jpg", "photos/?.jpg") == ["x.jpg", "b.jpg"]


def test_a_file_may_look_like_a_pattern(photos):
    assert paths("one[1].jpg") == ["one[1].jpg"]
    assert is_one_file(["one[1].jpg"])


def test_files_in_the_order_given_even_where_there_are_none(photos):
    assert paths("photos/b.jpg", "no.jpg", "photos/cats") == [
        *("photos/b.jpg", "no.jpg", "photos/cats/10.webp", "photos/cats/2.jpeg")
    ]


@pytest.mark.parametrize(
    ("sources", "one"),
    [
        (["photos/b.jpg"], True),
        (["no.jpg"], True),
        (["photos"], False),
        (["photos/dogs"], False),  # though there is one in it
        (["photos/b.*"], False),
        (["photos/b.jpg", "photos/a.PNG"], False),
    ],
)
def test_one_file_is_one_that_is_named(photos, sources, one):
    assert is_one_file(sources) == one


@pytest.mark.parametrize("source", ["empty", "photos/*.tiff", "photos/*.txt"])
def test_no_image(photos, source):
    (photos / "empty").mkdir()
    with pytest.raises(DataError) as caught:
        find_images([source])
    assert str(caught.value).startswith(f"{source}: no images; expected files ending in .avif, ")


def test_linked_folders_are_entered_once(photos):
    (photos / "photos" / "cats" / "again").symlink_to(photos / "photos")
    (photos / "photos" / "linked").symlink_to(photos / "other")
    assert names("photos")[-1] == "linked/x.jpg"
    assert len(names("photos")) == 6


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(photos):
    (photos / "photos" / "cats").chmod(0)
    with pytest.raises(DataError, match="photos/cats: cannot be read: Permission denied"):
        find_images(["photos"])
    (photos / "photos" / "cats").chmod(0o700)


AS_IT_IS = Preprocess(resize=None, crop=None)


def written(folder, sizes):
    """An image per (height, width); for None, a file that is no image."""
    files = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}.png"
        if size is None:
            path.write_text("no image")
        else:
            pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
            cv2.imwrite(str(path), pixels)
        files.append(ImageFile(str(path), path.name))
    return files


def read(files, size, workers=2, preprocess=AS_IT_IS):
    errors = []
    note = lambda error: errors.append(str(error))  # noqa: E731
    batches = list(prepared_batches(files, size, preprocess, workers, False, note))
    return [[image.number for image in batch] for batch in batches], errors, batches


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_of_one_shape_and_in_order(tmp_path, workers):
    small, large = (4, 5), (6, 5)
    sizes = [small, small, small, large, None, large, small, small, None, small, small, None]
    files = written(tmp_path, sizes)
    batches, errors, _ = read(files, 3, workers)
    assert batches == [[0, 1, 2], [3, 5], [6, 7, 9], [10]]
    assert [error.split(":")[0] for error in errors] == [files[n].path for n in (4, 8, 11)]


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_images_are_prepared_as_for_evaluation(tmp_path, order):
    preprocess = Preprocess(order=order, resize=24, crop=17, interpolation="area")
    files = written(tmp_path, [(40, 61), (90, 30)])
    _, _, ((first, second),) = read(files, 2, preprocess=preprocess)
    for file, found in zip(files, (first, second)):
        expected = to_network_layout(EvalTransform(preprocess)(read_image(file.path)), order)
        assert np.array_equal(found.pixels, expected)


def test_an_image_that_does_not_fit_is_left_out(tmp_path):
    files = written(tmp_path, [(9, 9), (7, 9), (8, 8)])
    batches, errors, _ = read(files, 4, preprocess=Preprocess(resize=None, crop=8))
    assert batches == [[0, 2]]
    assert errors == [f"{files[1].path}: an image of 9x7 pixels is too small for a crop of 8"]


def test_an_error_may_end_it(tmp_path):
    """And no thread stays."""

    def refuse(error):
        raise error

    before = set(threading.enumerate())
    files = written(tmp_path, [(4, 4), None, (4, 4)])
    with pytest.raises(DataError, match="1.png: not an image"):
        list(prepared_batches(files, 2, AS_IT_IS, 3, False, refuse))
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("workers", [1, 3])
def test_few_images_are_held_at_a_time(monkeypatch, workers):
    """Of any number of files: two batches, and one for each thread."""
    begun = []

    def prepare(file, number, *args):
        begun.append(number)
        return module.PreparedImage(file, number, np.zeros((3, 1, 1), np.uint8), None, None)

    monkeypatch.setattr(module, "prepare_image", prepare)
    files = (ImageFile(str(n), str(n)) for n in range(500))
    taken = most = 0
    for batch in prepared_batches(files, 8, AS_IT_IS, workers, False, None):
        most = max(most, len(begun) - taken)
        taken += len(batch)
    assert taken == 500
    assert most <= 3 * 8 + workers


def test_the_part_that_the_network_sees(tmp_path):
    """Found again in the resized image, by its pixels."""
    (file,) = written(tmp_path, [(30, 54)])
    for rounding in ("down", "nearest"):
        preprocess = Preprocess(resize=20, crop=13, interpolation="nearest", rounding=rounding)
        found = prepare_image(file, 0, preprocess, False)
        height, width = 20, 36
        image = cv2.resize(read_image(file.path), (width, height), interpolation=cv2.INTER_NEAREST)
        box = np.array(found.seen) * (height, width, height, width)
        top, left, bottom, right = np.rint(box).astype(int)
        assert np.allclose(box, (top, left, bottom, right))
        assert (bottom - top, right - left) == (13, 13) and found.pixels.shape == (3, 13, 13)
        assert np.array_equal(image[top:bottom, left:right].transpose(2, 0, 1), found.pixels)
    assert prepare_image(file, 0, AS_IT_IS, False).seen == (0, 0, 1, 1)


def test_the_picture_is_the_whole_image(tmp_path):
    (file,) = written(tmp_path, [(20, 40)])
    preprocess = Preprocess(resize=10, crop=10)
    assert prepare_image(file, 0, preprocess, shown=False).picture is None
    picture = prepare_image(file, 0, preprocess, shown=True).picture
    expected = read_image(file.path).repeat(12, 0).repeat(12, 1)
    assert np.array_equal(picture, expected)


def test_files_that_are_left_out_are_counted(photos, caplog):
    for name in ("1.JXL", "2.jxl", "3.psd", "x", "4.cr2", "5.mov", "6.svg", "7.pdf"):
        (photos / "photos" / name).touch()
    before = paths("photos")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert message.startswith("photos: left out, not named as images that can be read: 2 .jxl, 1 ")
    assert message.count(",") == 6 and message.endswith("3 of other kinds")
    assert len(before) == 5
    caplog.clear()
    assert paths("photos/b.jpg", "photos/*.jpg") == ["photos/b.jpg"] * 2
    assert len(caplog.records) == 0


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".jp2", ".pgm"])
def test_further_names_of_images(tmp_path, suffix, caplog):
    kind = {".jfif": ".jpg", ".JPE": ".jpg"}.get(suffix, suffix)
    image = np.full((66, 65, 1 if kind == ".pgm" else 3), 90, np.uint8)
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(kind, image)[1].tobytes())
    ((found,),) = read(find_images([str(tmp_path)]), 1)[2]
    assert found.pixels.shape == (3, 66, 65) and abs(int(found.pixels.mean()) - 90) < 3
    assert not caplog.records


def test_a_folder_of_other_files_says_which(tmp_path):
    (tmp_path / "a.jxl").touch()
    with pytest.raises(DataError, match=r"no images; expected files ending in .*, found 1 \.jxl$"):
        find_images([str(tmp_path)])


@pytest.mark.parametrize("source", ["https://host/a.jpg?x=1", "HTTP://host/*.jpg", "ftp://h/a.png"])
def test_a_web_address_is_not_fetched(source):
    with pytest.raises(DataError, match="is a web address; download the image and give its file"):
        find_images([source])


def piped(data):
    """The path of a pipe with ``data`` in it, and its end."""
    end, start = os.pipe()

    def fill():
        with os.fdopen(start, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=fill)
    thread.start()
    return f"/dev/fd/{end}", end, thread


def test_a_pipe_is_read_once(tmp_path):
    (file,) = written(tmp_path, [(90, 80)])
    path, end, thread = piped(open(file.path, "rb").read())  # noqa: PTH123, SIM115
    try:
        (found,) = find_images([path])
        thread.join()
        for _ in range(2):
            assert np.array_equal(found.read(), read_image(file.path))
    finally:
        os.close(end)
    assert is_one_file([path])


@pytest.mark.parametrize("delay", [0, 0.3])
def test_a_named_pipe_with_a_writer(tmp_path, delay):
    """One that comes late, and is slow."""
    (file,) = written(tmp_path, [(90, 80)])
    data = Path(file.path).read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def fill():
        time.sleep(delay)
        with pipe.open("wb", buffering=0) as end:
            for start in range(0, len(data), 5000):
                end.write(data[start : start + 5000])
                time.sleep(delay / 10)

    thread = threading.Thread(target=fill)
    thread.start()
    (found,) = find_images([str(pipe)])
    thread.join()
    assert np.array_equal(found.read(), read_image(file.path))


def test_a_named_pipe_that_nobody_writes_to(tmp_path, monkeypatch):
    """It would be waited for for ever."""
    monkeypatch.setattr(module, "_WRITER_SECONDS", 0.2)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe: a named pipe that nobody writes to"):
        find_images([str(tmp_path / "pipe")])


def test_a_named_pipe_whose_writer_says_nothing(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"",))
    thread.start()
    (found,) = find_images([str(tmp_path / "pipe")])
    thread.join()
    with pytest.raises(DataError, match="the file is empty"):
        found.read()


def test_standard_input(tmp_path, monkeypatch):
    (file,) = written(tmp_path, [(9, 8)])
    data = io.BytesIO(open(file.path, "rb").read())  # noqa: PTH123, SIM115
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data))
    (found,) = find_images(["-"])
    assert np.array_equal(found.read(), read_image(file.path))
    assert (found.path, found.name) == ("-", "stdin")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(DataError, match="^-: the file is empty"):
        find_images(["-"])[0].read()


def test_an_endless_pipe_is_refused(monkeypatch):
    class Endless(io.RawIOBase):
        def read(self, size=-1):
            return bytes(size)

    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match="pipe: gives more than 1,000 bytes"):
        read_bounded(Endless(), "pipe")
