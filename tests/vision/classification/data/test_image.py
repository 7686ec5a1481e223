import struct
import time
import zlib

import cv2
import numpy as np
import pytest

from official.vision.classification.data.image import read_image
from official.vision.classification.errors import DataError

# Where the EXIF standard says that the stored 0th row and 0th column are to be seen.
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def picture(height=97, width=131, seed=0):
    """A smooth BGR image, which JPEG changes little."""
    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 9), None, 0, 255, cv2.NORM_MINMAX)
    return smooth.astype(np.uint8)


def encode(image, suffix, *flags):
    done, data = cv2.imencode(suffix, image, list(flags))
    assert done
    return data.tobytes()


def jpeg(image, quality=95, progressive=0):
    quality = (cv2.IMWRITE_JPEG_QUALITY, quality)
    return encode(image, ".jpg", *quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)


def exif(orientation=1, thumbnail=b""):
    """An APP1 segment: IFD 0 with the orientation, IFD 1 with a thumbnail."""
    entry = struct.Struct("<HHII")
    directory = struct.pack("<H", 1) + entry.pack(0x0112, 3, 1, orientation)
    tiff = b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 26 if thumbnail else 0)
    if thumbnail:
        directory = struct.pack("<H", 2) + entry.pack(0x0201, 4, 1, 56)
        tiff += directory + entry.pack(0x0202, 4, 1, len(thumbnail)) + bytes(4) + thumbnail
        assert tiff[56 : 56 + len(thumbnail)] == thumbnail
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body


def with_segment(data, segment):
    assert data[:2] == b"\xff\xd8"
    return data[:2] + segment + data[2:]


def with_thumbnail(data):
    thumbnail = jpeg(picture(24, 32, 1))
    assert thumbnail.endswith(b"\xff\xd9")
    return with_segment(data, exif(thumbnail=thumbnail))


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message


def difference(found, expected):
    return float(np.abs(found.astype(float) - expected).mean())


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tiff"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    path = tmp_path / ("image" + suffix)
    path.write_bytes(encode(picture(), suffix))
    found = read_image(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, picture())
    np.testing.assert_array_equal(read_image(str(path)), picture())


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("change", [bytes, with_thumbnail], ids=["plain", "thumbnail"])
def test_jpeg(tmp_path, progressive, change):
    data = change(jpeg(picture(), progressive=progressive))
    assert (b"\xff\xc2" in data) == bool(progressive)  # the start of a progressive frame
    path = tmp_path / "image.JPEG"
    path.write_bytes(data)
    found = read_image(path)
    assert found.shape == (97, 131, 3) and found.dtype == np.uint8
    assert difference(found, picture()) < 2


@pytest.mark.parametrize("extra", [b"\0", b"\0" * 9000, b"\xff\xd8 the start of another", b"\n"])
def test_bytes_after_the_end_do_not_matter(tmp_path, extra):
    for suffix in (".jpg", ".png"):
        path = tmp_path / ("image" + suffix)
        path.write_bytes(encode(picture(), suffix) + extra)
        np.testing.assert_array_equal(
            read_image(path), cv2.imdecode(np.frombuffer(encode(picture(), suffix), np.uint8), 1)
        )


def test_fill_bytes_and_strays_between_segments_do_not_matter(tmp_path):
    """Decoders pass over them; so must the search for the end, thumbnail or not."""
    path = tmp_path / "image.jpg"
    data = with_thumbnail(jpeg(picture()))
    middle = 2 + len(exif(thumbnail=jpeg(picture(24, 32, 1))))
    for stray in (b"\xff" * 7, b"\0" * 5, b"\xff\x00\xff\x00", b"\xff\x01", b"\xff\xd3"):
        changed = data[:middle] + stray + data[middle:]
        path.write_bytes(changed)
        assert difference(read_image(path), picture()) < 2
        path.write_bytes(changed[:-500])
        assert "cut short" in refusal(path)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_turned_upright(tmp_path, orientation):
    upright = picture(64, 96)
    row, column = ORIENTATIONS[orientation]
    stored = upright.transpose(1, 0, 2) if row in ("left", "right") else upright
    stored = stored[::-1] if row in ("bottom", "right") else stored
    stored = stored[:, ::-1] if column in ("bottom", "right") else stored
    path = tmp_path / "image.jpg"
    path.write_bytes(with_segment(jpeg(np.ascontiguousarray(stored)), exif(orientation)))
    found = read_image(path)
    assert found.shape == upright.shape
    assert difference(found, upright) < 2


def test_other_pixel_formats_become_bgr_bytes(tmp_path):
    path = tmp_path / "image.png"
    colour, grey = picture(), picture()[:, :, 1]
    thrice = np.repeat(grey[:, :, None], 3, 2)
    alpha = np.dstack([colour, grey])
    cases = [
        (grey, thrice),
        (alpha, colour),  # what is hidden stays: no blending with any background
        (colour.astype(np.uint16) * 257, colour),
        (grey.astype(np.uint16) * 257, thrice),
        (alpha.astype(np.uint16) * 257, colour),
    ]
    for stored, expected in cases:
        path.write_bytes(encode(stored, ".png"))
        found = read_image(path)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_grey_jpeg_has_three_channels(tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(jpeg(picture()[:, :, 0]))
    found = read_image(path)
    assert found.shape == (97, 131, 3)
    assert difference(found, picture()[:, :, :1]) < 2


def test_cmyk_jpeg_as_pillow_reads_it(tmp_path):
    """ImageNet holds 22 of them."""
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / "image.jpg"
    pillow.fromarray(picture()).convert("CMYK").save(path, quality=95)
    with pillow.open(path) as stored:
        assert stored.mode == "CMYK"
        expected = np.array(stored.convert("RGB"))[:, :, ::-1]
    assert difference(read_image(path), expected) < 1


def test_animations_give_their_first_frame(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    first, second = pillow.fromarray(picture()), pillow.fromarray(255 - picture())
    for name in ("image.png", "image.webp", "image.gif"):
        path = tmp_path / name
        options = {"lossless": True} if path.suffix == ".webp" else {}
        first.save(path, save_all=True, append_images=[second], **options)
        expected = first
        if path.suffix == ".gif":
            with pillow.open(path) as stored:  # a palette of 256 colours
                expected = stored.convert("RGB")
        np.testing.assert_array_equal(read_image(path), np.array(expected)[:, :, ::-1])


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("change", [bytes, with_thumbnail], ids=["plain", "thumbnail"])
def test_every_cut_of_a_jpeg_is_noticed(tmp_path, progressive, change):
    rng = np.random.default_rng(progressive)
    path = tmp_path / "cut.jpg"
    for seed in range(2):
        data = change(jpeg(picture(seed=seed), int(rng.integers(50, 100)), progressive))
        inside = rng.integers(1, len(data), 25)
        for length in [*inside.tolist(), len(data) - 1, len(data) - 2]:
            path.write_bytes(data[:length])
            assert "cut short" in refusal(path) or length < 2


def test_a_cut_behind_a_thumbnail_is_called_by_its_name(tmp_path):
    """The thumbnail's end mark comes first."""
    path = tmp_path / "cut.jpg"
    data = with_thumbnail(jpeg(picture()))
    cut = data[: len(data) - len(data) // 4]
    assert b"\xff\xd9" in cut
    path.write_bytes(cut)
    assert "cut short" in refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tiff", ".webp"])
def test_cuts_of_other_formats_are_noticed(tmp_path, suffix, capfd):
    path = tmp_path / ("cut" + suffix)
    data = encode(picture(), suffix)
    for length in [*np.random.default_rng(0).integers(1, len(data), 10), len(data) - 1]:
        path.write_bytes(data[:length])
        assert "cut short" in refusal(path) or suffix != ".png" or length < 8
    capfd.readouterr()  # what the decoders themselves print


def png_chunk(kind, content):
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def test_what_is_no_image_is_named(tmp_path, capfd):
    huge = b"\x89PNG\r\n\x1a\n" + png_chunk(
        b"IHDR", struct.pack(">IIBBBBB", *[60000] * 2, 8, 2, *[0] * 3)
    )
    contents = {
        "text.jpg": b"<html>404 not found</html>",
        "marks.jpg": b"\xff\xd8\xff\xd9\xff\xd9",
        "huge.png": huge + png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b""),
        "zeros.png": bytes(1000),
    }
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        refusal(path)
    path = tmp_path / "nothing.jpg"
    path.touch()
    assert "the file is empty" in refusal(path)
    assert "no such image" in refusal(tmp_path / "missing.jpg")
    assert "cannot be read" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("long" * 100))
    capfd.readouterr()


def test_a_name_that_is_not_ascii(tmp_path):
    path = tmp_path / "größe 图像 🐈.png"
    path.write_bytes(encode(picture(), ".png"))
    np.testing.assert_array_equal(read_image(path), picture())
    path.write_bytes(b"nothing")
    refusal(path)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "filler",
    [b"\xff", b"\xff\xe0\0\0", b"\xff\xe0\0\1", b"\xff\x00", b"\xff\xd0\0\0\0", b"\xff\xda"],
    ids=["fill", "length0", "length1", "stuffed", "restart", "scans"],
)
def test_a_header_without_end_is_given_up_quickly(tmp_path, filler, capfd):
    path = tmp_path / "hostile.jpg"
    path.write_bytes(b"\xff\xd8" + filler * (8_000_000 // len(filler) // len(filler) ** 2))
    start = time.process_time()
    assert "cut short" in refusal(path)
    assert time.process_time() - start < 2
    capfd.readouterr()
