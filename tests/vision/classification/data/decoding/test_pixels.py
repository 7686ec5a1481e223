"""Every promised format in its depths and colours, from files that OpenCV, Pillow or this test
wrote, against the pixels that went in."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from official.vision.classification.data.image import read_image, remarks
from official.vision.classification.errors import DataError

FILES = Path(__file__).parent / "files"  # drawn as below, and written by libheif, libavif, libjxl
ROWS, COLUMNS = np.mgrid[0:40, 0:56]
RGB = np.dstack([ROWS * 6, COLUMNS * 4, (ROWS + COLUMNS) * 2]).astype(np.uint8)
GREY = RGB[:, :, 1]
GREYS = np.repeat(GREY[:, :, None], 3, 2)
BLACK_WHITE = (GREYS > 100) * np.uint8(255)


def written(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(array):
    return Image.fromarray(array)


def tiff(array, kind=1, compression=1, photometric=None, extra=()):
    """A TIFF of one uncompressed strip; ``kind`` is SampleFormat: 1 unsigned, 2 signed, 3 float."""
    array = np.ascontiguousarray(array)
    samples = array.shape[2] if array.ndim == 3 else 1
    if photometric is None:
        photometric = 2 if samples > 2 else 1
    bits = [array.itemsize * 8] * samples
    values = [
        (256, 4, [array.shape[1]]),
        (257, 4, [array.shape[0]]),
        (258, 3, bits),
        (259, 3, [compression]),
        (262, 3, [photometric]),
        (273, 4, [8]),
        (277, 3, [samples]),
        (278, 4, [array.shape[0]]),
        (279, 4, [array.nbytes]),
        (339, 3, [kind] * samples),
        *extra,
    ]
    at = 8 + array.nbytes
    entries, tail = b"", b""
    after = at + 2 + 12 * len(values) + 4
    for tag, type_, numbers in sorted(values):
        packed = struct.pack(f"<{len(numbers)}{'H' if type_ == 3 else 'I'}", *numbers)
        if len(packed) > 4:
            where, tail = struct.pack("<I", after + len(tail)), tail + packed
        else:
            where = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, type_, len(numbers)) + where
    header = b"II*\0" + struct.pack("<I", at)
    return header + array.tobytes() + struct.pack("<H", len(values)) + entries + bytes(4) + tail


def found(tmp_path, data):
    path = tmp_path / "image.jpg"  # the name says nothing
    path.write_bytes(data)
    with remarks() as told:
        image = read_image(path)
    remark = told[0][len(f"{path}: ") :] if told else ""
    assert len(told) < 2 and told in ([], [f"{path}: {remark}"])
    assert image.dtype == np.uint8 and image.flags.c_contiguous and image.flags.writeable
    return image[:, :, ::-1], remark


def refusal(tmp_path, data):
    path = tmp_path / "image.jpg"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


def pnm(magic, top, samples, text=False):
    header = f"{magic}\n# a comment\n{GREY.shape[1]} {GREY.shape[0]}\n"
    header += f"{top}\n" if top else ""
    body = " ".join(map(str, samples.ravel())).encode() if text else samples.tobytes()
    return header.encode() + body


def scaled(array, top):
    return (array.astype(float) * top / 255).round()


def bit_fields(masks, header=40, bits=32, alpha=0, top_down=False):
    """A BMP whose masks say where red, green and blue are; header is that part's size."""
    values = np.zeros(GREY.shape, np.uint64)
    for plane, mask in zip(np.moveaxis(RGB.astype(np.uint64), 2, 0), masks):
        lowest = (mask & -mask).bit_length() - 1
        top = mask >> lowest
        values |= (plane * top + 127) // 255 << lowest
    values = (values if top_down else values[::-1]).astype("<u4" if bits == 32 else "<u2")
    height, width = GREY.shape
    sizes = (width, -height if top_down else height, 1, bits, 3, values.nbytes, 0, 0, 0, 0)
    info = struct.pack("<IiiHHIIiiII4I", header, *sizes, *masks, alpha)
    info = info[: max(header, 52)].ljust(max(header, 52), b"\0")
    start = 14 + len(info)
    return (
        b"BM" + struct.pack("<IHHI", start + values.nbytes, 0, 0, start) + info + values.tobytes()
    )


EXACT = {
    "tiff": (written(picture(RGB), "TIFF"), RGB),
    "tiff lzw": (written(picture(RGB), "TIFF", compression="tiff_lzw"), RGB),
    "tiff deflate": (written(picture(RGB), "TIFF", compression="tiff_adobe_deflate"), RGB),
    "tiff packbits": (written(picture(RGB), "TIFF", compression="packbits"), RGB),
    "tiff grey": (written(picture(GREY), "TIFF"), GREYS),
    "tiff white is zero": (tiff(255 - GREY, photometric=0), GREYS),
    "tiff fax": (
        written(picture(BLACK_WHITE[:, :, 0]).convert("1"), "TIFF", compression="group4"),
        BLACK_WHITE,
    ),
    "tiff cmyk": (written(picture(RGB).convert("CMYK"), "TIFF"), RGB),
    "tiff alpha": (written(picture(np.dstack([RGB, GREY])), "TIFF"), RGB),
    "tiff 16 bits": (tiff(RGB.astype(np.uint16) * 257), RGB),
    "tiff 16 bits grey": (tiff(GREY.astype(np.uint16) * 257), GREYS),
    "bmp 1": (written(picture(BLACK_WHITE[:, :, 0]).convert("1"), "BMP"), BLACK_WHITE),
    "bmp palette": (written(picture(GREY), "BMP"), GREYS),
    "tiff 16 bits white is zero": (
        tiff((255 - GREY).astype(np.uint16) * 257, photometric=0),
        GREYS,
    ),
    "bmp fields": (bit_fields((0xFF, 0xFF00, 0xFF0000)), RGB),
    "bmp fields 52": (bit_fields((0xFF000000, 0xFF0000, 0xFF00), 52), RGB),
    "bmp fields down": (bit_fields((0xFF0000, 0xFF00, 0xFF), 56, top_down=True), RGB),
    "bmp fields alpha": (bit_fields((0xFF, 0xFF00, 0xFF0000), 108, alpha=0xFF000000), RGB),
    "bmp fields of 10 bits": (bit_fields((0x3FF00000, 0xFFC00, 0x3FF), 124), RGB),
    "bmp 32": (written(picture(RGB).convert("RGBA"), "BMP"), RGB),
    "png 1": (written(picture(BLACK_WHITE[:, :, 0]).convert("1"), "PNG"), BLACK_WHITE),
    "png grey and alpha": (written(picture(GREY).convert("LA"), "PNG"), GREYS),
    "webp": (written(picture(RGB), "WEBP", lossless=True), RGB),
    "webp alpha": (
        written(picture(np.dstack([RGB, GREY])), "WEBP", lossless=True, exact=True),
        RGB,
    ),
    "jpeg 2000": (written(picture(RGB), "JPEG2000"), RGB),
    "jpeg 2000 codestream": (written(picture(RGB), "JPEG2000", no_jp2=True), RGB),
    "jpeg 2000 grey": (written(picture(GREY), "JPEG2000"), GREYS),
    "P1": (pnm("P1", 0, (GREY <= 100).astype(int), True), BLACK_WHITE),
    "P2": (pnm("P2", 255, GREY, True), GREYS),
    "P3": (pnm("P3", 255, RGB, True), RGB),
    "P4": (pnm("P4", 0, np.packbits(GREY <= 100, 1)), BLACK_WHITE),
    "P5": (pnm("P5", 255, GREY), GREYS),
    "P6": (pnm("P6", 255, RGB), RGB),
    "P6 of 16 bits": (pnm("P6", 65535, RGB.astype(">u2") * 257), RGB),
    "gif": (written(picture(GREY), "GIF"), GREYS),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_come_back(tmp_path, name):
    data, expected = EXACT[name]
    image, remark = found(tmp_path, data)
    np.testing.assert_array_equal(image, expected)
    assert remark == ""


@pytest.mark.parametrize("header", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 15)])
def test_bmp_of_16_bits(tmp_path, masks, header):
    """Pillow is the oracle, for what it reads; and no bit may be lost."""
    data = bit_fields(masks, header, 16)
    image, remark = found(tmp_path, data)
    steps = np.array([256 / (mask // (mask & -mask)) for mask in masks])
    assert (np.abs(image.astype(int) - RGB) <= steps / 2 + 1).all() and remark == ""
    if masks[0] > 0xF00:
        expected = np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(image - expected).max() <= 1


def test_bmp_of_bit_fields_that_make_no_sense(tmp_path):
    data = bit_fields((0xFF, 0xFF00, 0xFF0000))
    for at, value in (
        (10, 1 << 31),
        (10, 20),
        (54, 0),
        (18, 0),
        (22, 0),
        (22, 1000),
        (22, 1 << 31),
    ):
        spoilt = data[:at] + struct.pack("<I", value) + data[at + 4 :]
        assert "damaged" in refusal(tmp_path, spoilt) or value == 1 << 31
    for length in (30, 50, 60, 66, len(data) - 1):
        assert "cut short" in refusal(tmp_path, data[:length])


@pytest.mark.parametrize("type_", [np.uint8, np.uint16])
def test_tiff_of_many_samples_is_named(tmp_path, type_):
    """As satellites and microscopes make them: no choice of three is right for all."""
    many = np.dstack([RGB, RGB[:, :, :2]]).astype(type_)
    assert "5 samples a pixel; save three as red, green" in refusal(tmp_path, tiff(many))


def test_deep_tiff_of_separate_colours_is_named(tmp_path):
    """OpenCV and Pillow both mix the colours up."""
    apart = np.moveaxis(RGB, 2, 0).copy().reshape(RGB.shape).astype(np.uint16) * 257
    message = refusal(tmp_path, tiff(apart, extra=[(284, 3, [2])]))
    assert "one after the other" in message and "PNG" in message


@pytest.mark.parametrize("colours", [2, 4, 16, 200])
def test_palettes(tmp_path, colours):
    drawn = picture(RGB).quantize(colours)
    expected = np.array(drawn.convert("RGB"))
    for kind, options in (("PNG", {}), ("PNG", {"transparency": 1}), ("GIF", {}), ("TIFF", {})):
        image, remark = found(tmp_path, written(drawn, kind, **options))
        np.testing.assert_array_equal(image, expected)
        assert remark == ""


@pytest.mark.parametrize("top", [15, 1023, 4095])
def test_pnm_of_any_largest_value(tmp_path, top):
    data = pnm("P5", top, scaled(GREY, top).astype(">u2" if top > 255 else "u1"))
    image, remark = found(tmp_path, data)
    assert np.abs(image.astype(float) - GREYS).max() <= 255 / top / 2 + 0.5
    assert remark == ""  # the header says it


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["png", "png colour", "tiff", "jpeg 2000"])
def test_few_bits_in_many(tmp_path, bits, kind):
    """Values of a microscope in a file of 16 bits are no black image, or it is said."""
    top = 2**bits - 1
    values = scaled(RGB if kind == "png colour" else GREY, top).astype(np.uint16)
    values.flat[0] = top
    if kind.startswith("png"):
        stored = values[:, :, ::-1] if values.ndim == 3 else values
        data = cv2.imencode(".png", stored)[1].tobytes()
    elif kind == "tiff":
        data = tiff(values)
    else:
        data = written(picture(values), "JPEG2000")
    image, remark = found(tmp_path, data)
    expected = RGB if kind == "png colour" else GREYS
    factor = {8: 1, 10: 0.25, 12: 1, 14: 0.25, 16: 1}[bits]
    inside = np.s_[1:]
    difference = np.abs(image[inside] - factor * expected[inside].astype(float)).max()
    assert difference <= 2, difference
    told = {8: "taken as 8 bits", 10: "12 bits", 12: "taken as 12 bits", 14: "dark", 16: ""}[bits]
    assert told in remark and bool(told) == bool(remark)
    assert not told or f"{top}" in remark


@pytest.mark.parametrize("type_", [np.float32, np.float64])
@pytest.mark.parametrize("top", [1, 255])
def test_floating_point_tiff(tmp_path, type_, top):
    for stored, expected in ((RGB, RGB), (GREY, GREYS)):
        values = stored.astype(type_) / 255 * top
        values.flat[0] = top
        image, remark = found(tmp_path, tiff(values, 3))
        np.testing.assert_array_equal(image[1:], expected[1:])
        assert f"taken as 0 to {top}" in remark


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 1e9])
def test_floating_point_without_a_scale_is_refused(tmp_path, value):
    values = GREY.astype(np.float32)
    values[3, 4] = value
    assert "floating-point values" in refusal(tmp_path, tiff(values, 3))


def test_whole_numbers_of_other_types(tmp_path):
    for type_ in (np.int16, np.uint32, np.int32):
        kind = 1 if np.dtype(type_).kind == "u" else 2
        image, remark = found(tmp_path, tiff(GREY.astype(type_), kind))
        np.testing.assert_array_equal(image, GREYS)
        assert "taken as 8 bits" in remark
    values = GREY.astype(np.int32)
    values[0, 0] = -5
    assert "values from -5 to 220" in refusal(tmp_path, tiff(values, 2))


def test_compressions_that_are_not_read_are_named(tmp_path):
    """OpenCV gives black pixels for some of them."""
    for compression in (6, 34712, 50001, 50002):
        message = refusal(tmp_path, tiff(RGB, compression=compression))
        assert f"compression {compression}" in message and "LZW" in message


@pytest.mark.parametrize("kind", ["TIFF", "WEBP", "PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_by_exif(tmp_path, kind, orientation):
    """Pillow writes the tag; its own ``exif_transpose`` is the oracle."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    data = written(picture(RGB), kind, exif=exif, **options)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert expected.shape == (RGB.shape if orientation < 5 else (56, 40, 3))
    image, _ = found(tmp_path, data)
    assert np.abs(image.astype(int) - expected).max() <= (2 if kind == "JPEG" else 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiff_is_upright(tmp_path, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    eight = written(picture(GREY), "TIFF", exif=exif)
    expected = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(eight))))
    data = tiff(GREY.astype(np.uint16) * 257, extra=[(0x0112, 3, [orientation])])
    image, _ = found(tmp_path, data)
    np.testing.assert_array_equal(image[:, :, 0], expected)


def test_nonsense_in_exif_does_not_matter(tmp_path):
    for bad in (
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9,
    ):
        exif = b"Exif\0\0" + bad
        data = written(picture(RGB), "JPEG", quality=100)
        segment = b"\xff\xe1" + struct.pack(">H", 2 + len(exif)) + exif
        image, _ = found(tmp_path, data[:2] + segment + data[2:])
        assert image.shape == RGB.shape


@pytest.mark.parametrize("name", ["drawn.heic", "drawn.avif", "turned.avif"])
def test_heic_and_avif_where_there_is_a_reader(tmp_path, name):
    data = (FILES / name).read_bytes()
    rows, columns = np.mgrid[0:16, 0:24]
    drawn = np.dstack([rows * 15, columns * 10, (rows + columns) * 6])
    expected = np.rot90(drawn, -1) if name == "turned.avif" else drawn
    has_reader = _has("pillow_heif") if name.endswith("heic") else _has("PIL._avif")
    if has_reader:
        image, _ = found(tmp_path, data)
        assert np.abs(image.astype(int) - expected).max() < 8
    else:
        message = refusal(tmp_path, data)
        assert ("pillow-heif" if "heic" in name else "AVIF") in message and "JPEG or PNG" in message


def _has(module):
    from importlib.util import find_spec

    return find_spec(module) is not None


def test_jpeg_xl_is_named(tmp_path):
    for name in ("drawn.jxl", "box.jxl"):
        assert "JPEG XL" in refusal(tmp_path, (FILES / name).read_bytes())


def smooth(seed=0):
    noise = np.random.default_rng(seed).random((120, 160, 3))
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return image.astype(np.uint8)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_pixels_are_those_of_opencv_and_pillow(tmp_path, subsampling, progressive):
    data = written(picture(smooth()), "JPEG", subsampling=subsampling, progressive=progressive)
    image, remark = found(tmp_path, data)
    np.testing.assert_array_equal(image, np.array(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(
        image[:, :, ::-1], cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    )
    assert remark == ""


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_is_damaged_in_its_middle_is_used_and_said(tmp_path, mode):
    pytest.importorskip("simplejpeg")
    data = written(picture(smooth()).convert(mode), "JPEG", quality=95)
    middle = len(data) // 2
    damaged = data[:middle] + bytes(400) + data[middle + 400 :]
    image, remark = found(tmp_path, damaged)
    assert image.shape == (120, 160, 3)
    assert remark.startswith("a damaged JPEG image (") and "orrupt" in remark
    assert found(tmp_path, data)[1] == ""


def test_a_damaged_jpeg_prints_nothing_of_its_own(tmp_path, capfd):
    pytest.importorskip("simplejpeg")
    data = written(picture(smooth()), "JPEG", quality=95)
    middle = len(data) // 2
    found(tmp_path, data[:middle] + bytes(400) + data[middle + 400 :])
    assert capfd.readouterr() == ("", "")


def test_a_png_with_a_wrong_checksum_is_refused(tmp_path, capfd):
    data = bytearray(written(picture(smooth()), "PNG"))
    data[len(data) // 2] ^= 0x55
    assert "a damaged PNG image" in refusal(tmp_path, bytes(data))
    assert capfd.readouterr() == ("", "")
