"""What must not reach a decoder, or must not cost: found by the first bytes and the header."""

import io
import os
import resource
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from official.vision.classification.data import image as image_module
from official.vision.classification.data.decoding import headers, pixels
from official.vision.classification.data.image import read_image
from official.vision.classification.errors import DataError
from tests import fuzz

ROOT = Path(__file__).parents[5]
pytestmark = pytest.mark.timeout(60)

JPEG_2000_OF_77_BYTES = bytes.fromhex(
    "0000000c6a5020200d0a870a00000014667479706a703220000000006a7032200000002d6a703268000000"
    "1669686472000186a0000186a00003070700000000000f636f6c7201000000000010"
)


def refusal(path, data=None):
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and len(message) < 400
    return message


def chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth=8):
    row = bytes(1 + width * 3 * depth // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def test_the_jpeg_2000_that_ends_opencv(tmp_path):
    """In a process of its own: a crash cannot be caught."""
    path = tmp_path / "x.jpg"
    path.write_bytes(JPEG_2000_OF_77_BYTES)
    code = (
        "import sys; from official.vision.classification.data.image import read_image\n"
        "from official.vision.classification.errors import DataError\n"
        "try: read_image(sys.argv[1])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout.startswith(f"{path}: 100,000 x 100,000 pixels")


@pytest.mark.parametrize("place", [(30, 20, 1, 0), (5000, 5000, 0, 0), (1 << 30, 1 << 30, 0, 0)])
def test_the_frames_of_a_png_that_end_opencv(tmp_path, place):
    """OpenCV 4.11 ends by a segmentation fault where a frame reaches beyond the image."""
    still = png(30, 20)
    animation = chunk(b"acTL", struct.pack(">II", 2, 0))
    animation += chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, *place, 1, 1, 0, 0))
    path = tmp_path / "x.png"
    path.write_bytes(still[:33] + animation + still[33:])
    code = (
        "import sys; from official.vision.classification.data.image import read_image\n"
        "print(read_image(sys.argv[1]).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0 and done.stdout == "(20, 30, 3)\n"


def test_a_png_begins_with_its_header(tmp_path):
    data = png(30, 20)
    small = struct.pack(">IIB", 10, 10, 8)  # where the header would say the size
    path = tmp_path / "x.png"
    assert "no header" in refusal(path, data[:8] + chunk(b"tEXt", small) + data[8:])
    assert "Apple" in refusal(path, data[:8] + chunk(b"CgBI", b"P\0 \2") + data[8:])


def huge(kind):
    """A small file whose header promises 20,000 x 20,000 pixels."""
    buffer = io.BytesIO()
    if kind == "PNG":
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    if kind == "PNM":
        return b"P6 20000 20000 255\n" + bytes(100)
    Image.new("RGB", (16, 12)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    if kind == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 20000, 20000)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 20000, -20000)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", 20000, 20000)
    elif kind == "WEBP":
        at = data.index(b"\x9d\x01\x2a")
        data[at + 3 : at + 7] = struct.pack("<HH", 16383, 16383)
    elif kind == "JPEG2000":
        at = data.index(b"ihdr")
        data[at + 4 : at + 12] = struct.pack(">II", 20000, 20000)
    elif kind == "TIFF":
        (at,) = struct.unpack_from("<I", data, 4)
        for entry in range(at + 2, at + 2 + 12 * data[at], 12):
            if data[entry : entry + 2] in (b"\0\1", b"\1\1"):
                data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, 20000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PNM", "JPEG2000"])
def test_pixels_are_counted_before_memory_is_taken(tmp_path, kind):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refusal(tmp_path / "huge.jpg", huge(kind))
    assert "0 x 20,000 pixels" in message or "16,383 x 16,383 pixels" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_the_limit_is_the_last_size_that_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_PIXELS", 600)
    path = tmp_path / "image.png"
    path.write_bytes(png(30, 20))
    assert read_image(path).shape == (20, 30, 3)
    assert "601 x 1 pixels; at most 600" in refusal(path, png(601, 1))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    for path, what in (
        (pipe, "a named pipe"),
        (folder, "a folder"),
        (Path("/dev/zero"), "a device"),
        (Path("/dev/null"), "a device"),
    ):
        start = time.monotonic()
        assert what in refusal(path)
        assert time.monotonic() - start < 2


def test_a_link_to_a_device_is_refused(tmp_path):
    link = tmp_path / "image.png"
    link.symlink_to("/dev/zero")
    assert "a device" in refusal(link)


def test_a_pipe_where_the_caller_wants_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    drawn = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    data = cv2.imencode(".png", drawn)[1].tobytes()
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    np.testing.assert_array_equal(read_image(pipe, pipe=True), drawn)
    writer.join()


def test_files_and_pipes_of_any_size_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(image_module, "MAX_BYTES", 1000)
    path = tmp_path / "image.png"
    assert "1,001 bytes; at most 1,000" in refusal(path, bytes(1001))
    assert "at most" not in refusal(path, bytes(1000))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def pour():
        with pytest.raises(BrokenPipeError):
            pipe.write_bytes(bytes(1 << 22))

    writer = threading.Thread(target=pour)
    writer.start()
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_image(pipe, pipe=True)
    writer.join()


NAMED = {
    "web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "web page after spaces": (b"\n  <html>", "web page"),
    "error text": (b'{"error": "no"}', "text"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
    "macos": (b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(50), "macOS"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
    "pdf": (b"%PDF-1.4", "PDF"),
    "zip": (b"PK\3\4" + bytes(30), "zip"),
    "psd": (b"8BPS\0\1" + bytes(30), "Photoshop"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(9), "video"),
    "raw of canon": (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(9), "raw"),
    "heic by brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(9), "HEIC"),
    "avif by brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif" + bytes(9), "AVIF"),
    "zeros": (bytes(1000), "zeros"),
    "words": (b"BM is how this text begins, and it is no bitmap", "not an image"),
    "noise": (np.random.default_rng(0).bytes(1000), "not an image"),
    "dicom": (bytes(128) + b"DICM" + bytes(99), "DICOM"),
    "one byte": (b"\xff", "not an image"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_it_is_instead_is_named_with_a_way_out(tmp_path, name):
    data, word = NAMED[name]
    if name == "avif by brand" and features.check("avif"):
        word = "damaged"  # this Pillow reads AVIF, and the file has nothing but its first bytes
    message = refusal(tmp_path / "image.jpg", data)
    assert word in message and ";" in message


def test_the_small_picture_of_a_raw_file_is_not_taken_for_the_photograph(tmp_path):
    """NEF, DNG and CR2 are TIFF files that begin with one."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, "TIFF", tiffinfo={254: 1})
    assert "raw" in refusal(tmp_path / "a.tif", buffer.getvalue())
    plain = io.BytesIO()
    Image.new("RGB", (16, 12)).save(plain, "TIFF")
    data = plain.getvalue()
    assert "raw" in refusal(tmp_path / "b.tif", b"II*\0\x10\0\0\0CR\2\0\0\0\0\0" + data[8:])


@pytest.mark.parametrize("count", [headers.MAX_SCANS + 1, 50_000])
def test_a_progressive_jpeg_of_very_many_scans(tmp_path, count):
    buffer = io.BytesIO()
    Image.new("RGB", (800, 800)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    at = data.rindex(b"\xff\xda")
    start = time.process_time()
    assert "scans" in refusal(tmp_path / "x.jpg", data[:at] + data[at:-2] * count + data[-2:])
    assert time.process_time() - start < 1


def test_a_png_of_very_many_chunks(tmp_path, monkeypatch):
    data = png(30, 20)
    many = data[:33] + chunk(b"teSt", b"") * headers.MAX_CHUNKS + data[33:]
    start = time.process_time()
    assert "chunks" in refusal(tmp_path / "x.png", many)
    assert time.process_time() - start < 2


def test_a_directory_of_tags_that_points_anywhere(tmp_path):
    for count, offset in ((65535, 8), (3, 8), (3, 1 << 31), (0, 8)):
        data = b"II*\0" + struct.pack("<IH", offset, count)
        entry = struct.pack("<HHII", 258, 3, 0xFFFFFFFF, 8)
        message = refusal(tmp_path / "x.tif", data + entry * 3)
        assert "TIFF" in message or "cut short" in message


def test_tags_of_nothing(tmp_path):
    """Each tag of a TIFF once without a value, and all of them; found by changing bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 12)).save(buffer, "TIFF", tiffinfo={254: 0})
    data = buffer.getvalue()
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    places = [at + 2 + 12 * index + 4 for index in range(count)]
    path = tmp_path / "x.tif"
    for chosen in (*([place] for place in places), places):
        spoilt = bytearray(data)
        for place in chosen:
            spoilt[place : place + 4] = bytes(4)
        path.write_bytes(spoilt)
        try:
            assert read_image(path).shape == (12, 16, 3)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")


def _samples():
    drawn = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8), (5, 5), 0
    )
    for kind, options in (
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("PPM", {}),
        ("GIF", {}),
        ("JPEG2000", {}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(drawn).save(buffer, kind, **options)
        yield buffer.getvalue()
    for kind in ("PNG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        frames = [Image.fromarray(255 - drawn), Image.fromarray(drawn[::-1])]
        Image.fromarray(drawn).save(buffer, kind, save_all=True, append_images=frames)
        yield buffer.getvalue()
    yield from (path.read_bytes() for path in sorted((Path(__file__).parent / "files").iterdir()))


def _resealed(data):
    """A PNG whose checksums are right again, so that it comes as far as the decoder."""
    sealed, at = data[:8], 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        sealed += chunk(data[at + 4 : at + 8], data[at + 8 : end])
        at = end + 4
    return sealed


@pytest.mark.timeout(60 + 2 * fuzz.SECONDS)
def test_changed_bytes_never_give_anything_but_an_image_or_our_error(tmp_path, capfd):
    samples = list(_samples())
    path = tmp_path / "image.jpg"
    tried = refused = 0
    slowest = 0.0
    for rng in fuzz.rounds():
        data = fuzz.mutated(samples[int(rng.integers(len(samples)))], rng)
        if data.startswith(b"\x89PNG") and rng.random() < 0.8:
            data = _resealed(data)
        path.write_bytes(data)
        tried += 1
        start = time.process_time()
        try:
            image = read_image(path)
            assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
        slowest = max(slowest, time.process_time() - start)
    capfd.readouterr()
    assert 0 < refused < tried and slowest < 10
    with capfd.disabled():
        fuzz.tell("images", tried, refused, slowest)
