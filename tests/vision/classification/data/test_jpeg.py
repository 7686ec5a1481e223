"""Parts of JPEG files, against the decoding of the whole: equal to the bit, or not decoded.

The files are written by OpenCV and Pillow, in all the forms that these know. A longer run of the
same over photographs, from the root:

    PYTHONPATH=. python tests/vision/classification/data/test_jpeg.py FOLDER PAIRS
"""

import contextlib
import io
import random
import shutil
import struct
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from official.vision.classification.data import jpeg
from official.vision.classification.data.augment import Augment, TrainTransform, random_box
from official.vision.classification.data.decoding.pixels import MAX_PIXELS
from official.vision.classification.data.folder import load_folder
from official.vision.classification.data.image import check_image, decode_image, remarks
from official.vision.classification.data.jpeg import PartDecoder, part_decoder
from official.vision.classification.data.loader import Loader
from official.vision.classification.data.sampler import (
    BatchIndices,
    generator_of,
    sample_generator,
    sample_key,
)
from official.vision.classification.errors import DataError
from tests import fuzz

pytestmark = pytest.mark.timeout(120)

SAMPLING = {
    "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "422": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "440": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "411": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
SHAPES = ((75, 93), (64, 48), (33, 200), (17, 16), (1, 1), (300, 7))  # height, width


@pytest.fixture(scope="module")
def decoder():
    if not shutil.which("g++"):
        pytest.skip("no compiler")
    found = part_decoder()
    assert found, "its warning says why there is none"
    return found


def picture(shape, seed=0):
    """Shades with noise: of all frequencies, and of all colours."""
    height, width = shape
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    shades = np.stack([127 + 120 * np.sin(x / (5 + c) + y / (9 - c)) for c in range(3)], 2)
    return np.clip(shades + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(image, *flags):
    return cv2.imencode(".jpg", image, list(flags))[1].tobytes()


def by_pillow(image, **options):
    target = io.BytesIO()
    Image.fromarray(image).save(target, "jpeg", **options)
    return target.getvalue()


def whole(data):
    return decode_image(data, "whole")


def part(decoder, data, box, divisor=1):
    """As the loader asks for one: None where the whole image is needed, DataError for no image."""
    return decoder.part(data, box, check_image(data, "part")[1].orientation, divisor)


def boxes(shape, count, rng):
    """Random ones, and all that touch an edge or are one pixel."""
    height, width = shape
    for _ in range(count):
        w, h = rng.randint(1, width), rng.randint(1, height)
        yield rng.randint(0, width - w), rng.randint(0, height - h), w, h
    yield 0, 0, width, height
    yield width - 1, height - 1, 1, 1
    yield width // 2, 0, 1, height


def same(decoder, data, count=40, seed=0):
    """How many parts were compared; all of them are equal."""
    expected = whole(data)
    shape = expected.shape[:2]
    assert check_image(data, "")[1].upright == (shape[1], shape[0])
    total = 0
    for left, top, width, height in boxes(shape, count, random.Random(seed)):
        found = part(decoder, data, (left, top, width, height))
        wanted = expected[top : top + height, left : left + width]
        assert found is not None and np.array_equal(found, wanted), (left, top, width, height)
        total += 1
    return total


@pytest.mark.parametrize("sampling", SAMPLING)
@pytest.mark.parametrize(
    "form", ["baseline", "progressive", "restart", "optimized", "coarse", "fine"]
)
def test_every_part_is_that_of_the_whole_image(decoder, sampling, form):
    flags = {
        "baseline": (),
        "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restart": (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "coarse": (cv2.IMWRITE_JPEG_QUALITY, 12),
        "fine": (cv2.IMWRITE_JPEG_QUALITY, 100),  # most blocks have a last coefficient
    }[form]
    total = 0
    for seed, shape in enumerate(SHAPES):
        image = picture(shape, seed)
        factor = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[sampling])
        total += same(decoder, encoded(image, *factor, *flags), seed=seed)
    assert total == 43 * len(SHAPES)


@pytest.mark.parametrize("progressive", [False, True])
def test_grey_images(decoder, progressive):
    for shape in SHAPES:
        same(decoder, by_pillow(picture(shape)[:, :, 0], progressive=progressive))


def test_colours_that_are_not_transformed(decoder):
    same(decoder, by_pillow(picture(SHAPES[0]), keep_rgb=True))


def test_four_colours_are_left_to_pillow(decoder):
    ink = np.dstack([picture(SHAPES[0]), picture(SHAPES[0])[:, :, :1]])
    target = io.BytesIO()
    Image.fromarray(ink, "CMYK").save(target, "jpeg")
    assert part(decoder, target.getvalue(), (0, 0, 5, 5)) is None


# Huffman's code, which is read here and not by libjpeg: files made by hand


def code_of(data, place):
    """The codes, as text of bits by symbol, of a file's table: 0x00 or 0x10 for luma."""
    at = data.index(b"\xff\xc4")
    while data[at + 1] == 0xC4:
        if data[at + 4] == place:
            break
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    counts, symbols = data[at + 5 : at + 21], data[at + 21 :]
    codes, code, taken = {}, 0, 0
    for bits, count in enumerate(counts, 1):
        for symbol in symbols[taken : taken + count]:
            codes[symbol] = f"{code:0{bits}b}"
            code += 1
        taken += count
        code <<= 1
    return codes


def with_scan(data, bits):
    """A grey file with another scan, padded with ones."""
    start = data.index(b"\xff\xda") + 10
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return data[:start] + scan + b"\xff\xd9"


@pytest.fixture(scope="module")
def grey():
    """A grey image of two blocks, and its codes for means and for other coefficients."""
    data = by_pillow(np.full((8, 16), 128, np.uint8))
    return data, code_of(data, 0x00), code_of(data, 0x10)


def random_block(rng, mean, other, symbols):
    """A block of random coefficients; half of them end with the last one and not with a code."""
    bits, last = mean[3] + "101", 0
    while last < 63:
        symbol = rng.choice(symbols)
        last += symbol // 16 + 1
        if last > 63 or not rng.randrange(40):
            return bits + other[0]
        bits += other[symbol] + "".join(rng.choice("01") for _ in range(symbol % 16))
    return bits


def test_blocks_of_all_codes(decoder, grey):
    data, mean, other = grey
    rng = random.Random(0)
    plain, often = mean[0] + other[0], [0x01] * 60 + [0x02, 0x11, 0x21, 0xF0] * 9
    symbols = [each for each in other if each] + often
    for _ in range(300):
        bits = random_block(rng, mean, other, symbols)
        for scan in (bits + plain, plain + bits, bits + bits):
            same(decoder, with_scan(data, scan), 4)


def test_a_table_of_the_longest_codes(decoder):
    """Of 16 bits with numbers of 15: more than a word of the reader has in store for two."""
    data = by_pillow(np.full((8, 32), 128, np.uint8))
    mean = code_of(data, 0x00)
    lengths = {0x00: 2, 0x01: 2, 0x0F: 8, 0x1F: 10, 0x2F: 16, 0xF0: 16}
    counts = bytes(list(lengths.values()).count(bits) for bits in range(1, 17))
    table = b"\x10" + counts + bytes(lengths)
    at = data.index(b"\xff\xda")
    data = data[:at] + b"\xff\xc4" + struct.pack(">H", len(table) + 2) + table + data[at:]
    start = data.rindex(b"\xff\xc4", 0, data.index(b"\xff\xda"))
    other = code_of(data[start:], 0x10)
    assert [len(other[symbol]) for symbol in lengths] == list(lengths.values())
    rng = random.Random(0)
    for _ in range(300):
        odd = [random_block(rng, mean, other, list(lengths)[1:]) for _ in range(2)]
        scan = "".join(odd) + 2 * (mean[3] + "110" + other[0x01] + "1" + other[0])
        spoilt = with_scan(data, scan)
        expected = whole(spoilt)[:, 26:]  # what stands in the odd blocks has no bounds
        np.testing.assert_array_equal(decoder.part(spoilt, (26, 0, 6, 8)), expected)
        np.testing.assert_array_equal(decoder.part(spoilt, (0, 0, 32, 8))[:, 26:], expected)


@pytest.mark.parametrize("block", [0, 1])
@pytest.mark.parametrize(
    "spoilt",
    [
        lambda mean, other: mean[0] + 3 * other[0xF0] + other[0xF1] + "1",  # coefficient 64
        lambda mean, other: mean[0] + 4 * other[0xF0],
        lambda mean, other: mean[0] + 16 * "1",  # no code
        lambda mean, other: 9 * "1",
        lambda mean, other: mean[0] + other[0xF1] + "1",  # and then no more
    ],
)
def test_what_is_no_block_is_left_to_others(decoder, grey, spoilt, block):
    """Also where libjpeg says nothing, and pixels are another decoder's guess."""
    data, mean, other = grey
    plain = mean[0] + other[0]
    assert decoder.part(with_scan(data, plain + plain), (0, 0, 16, 8)) is not None
    bad = spoilt(mean, other)
    data = with_scan(data, plain + bad if block else bad + ("" if bad.endswith("11") else plain))
    assert decoder.part(data, (0, 0, 16, 8)) is None
    assert decoder.part(data, (15, 0, 1, 8)) is None


def test_a_mean_beyond_all_bounds(decoder):
    """Differences add up; libjpeg's sum would be cut to 16 bits."""
    data = by_pillow(np.full((8, 800), 128, np.uint8))
    mean, other = code_of(data, 0x00), code_of(data, 0x10)
    rising = mean[11] + 11 * "1" + other[0]  # by 2,047
    assert (
        decoder.part(with_scan(data, 15 * rising + 85 * (mean[0] + other[0])), (0, 0, 9, 8))
        is not None
    )
    assert (
        decoder.part(with_scan(data, 17 * rising + 83 * (mean[0] + other[0])), (0, 0, 9, 8)) is None
    )


@pytest.mark.parametrize("change", ["number", "lost", "more"])
def test_restart_markers_that_are_wrong(decoder, change):
    data = encoded(picture((64, 48)), cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    same(decoder, data)
    changed = {
        "number": data.replace(b"\xff\xd1", b"\xff\xd3"),
        "lost": data.replace(b"\xff\xd1", b""),
        "more": data.replace(b"\xff\xd1", b"\0\xff\xd1"),
    }[change]
    assert changed != data and decoder.part(changed, (0, 60, 48, 4)) is None


def exif(orientation, byte_order="<", kind=3, count=1, more=()):
    """An EXIF record with an orientation and further entries."""
    mark = b"II" if byte_order == "<" else b"MM"
    value = struct.pack(byte_order + "HH", orientation, 0)
    entries = [struct.pack(byte_order + "HHI", 0x0112, kind, count) + value, *more]
    head = mark + struct.pack(byte_order + "HIH", 42, 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + b"\0\0\0\0"


def with_segment(data, content, marker=0xE1):
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_orientations(decoder, orientation, byte_order):
    for shape in SHAPES[:3]:
        data = with_segment(encoded(picture(shape)), exif(orientation, byte_order))
        assert whole(data).shape[:2] == (shape if orientation < 5 else shape[::-1])
        same(decoder, data)


def test_a_record_of_a_real_camera(decoder):
    """Pillow writes more entries than one, and values that lie elsewhere."""
    record = Image.Exif()
    record[0x0112], record[0x010F], record[0x011A] = 6, "a maker of cameras", 72.5
    same(decoder, by_pillow(picture(SHAPES[0]), exif=record))


@pytest.mark.parametrize(
    "record",
    [
        exif(9),
        exif(0),
        exif(6, kind=4),
        exif(6, count=2),
        exif(6, more=[exif(3)[16:28]]),
        exif(6, more=[struct.pack("<HHII", 0x010F, 2, 1000, 20)]),
        exif(6)[:20],
        exif(6)[:6] + b"IM" + exif(6)[8:],
        b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(20),
        b"http:/II*\0" + exif(6)[10:],
    ],
)
def test_records_that_readers_differ_about(decoder, record):
    """One reader of headers says which way is up, for parts and whole images alike."""
    same(decoder, with_segment(encoded(picture((20, 30))), record))


@pytest.mark.parametrize("first", [b"http://ns.adobe.com/xap/1.0/\0<x/>", b"", exif(3)])
def test_other_segments_of_the_same_marker(decoder, first):
    """Cameras write XMP before or after the record, and editors a second record."""
    data = encoded(picture((20, 30)))
    same(decoder, with_segment(with_segment(data, exif(6)), first))
    same(decoder, with_segment(with_segment(data, first), exif(6)))


def test_decoding_to_a_fraction(decoder):
    """Pixels are near the mean of those they stand for, and upright; parts are those of a whole."""
    image = cv2.GaussianBlur(picture((96, 160)), (9, 9), 3)
    for orientation in (1, 3, 6, 8):
        data = with_segment(encoded(image, cv2.IMWRITE_JPEG_QUALITY, 98), exif(orientation))
        upright = whole(data)
        for divisor in (2, 4, 8):
            shape = (-(-upright.shape[1] // divisor), -(-upright.shape[0] // divisor))
            found = part(decoder, data, (0, 0, *shape), divisor)
            mean = cv2.resize(upright, shape, interpolation=cv2.INTER_AREA)
            assert np.abs(found.astype(int) - mean).mean() < 3
            inner = part(decoder, data, (3, 2, 7, 9), divisor)
            np.testing.assert_array_equal(inner[2:-2, 2:-2], found[2:11, 3:10][2:-2, 2:-2])


# What is not plain, damaged or hostile


@pytest.mark.timeout(60 + 2 * fuzz.SECONDS)
def test_parts_of_changed_bytes(decoder, capfd):
    """A part is that of the whole, or None where another decoder says what is left of it."""
    files = [
        encoded(picture(shape), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLING[sampling], *flags)
        for shape in ((75, 93), (120, 160))
        for sampling in ("444", "422", "420")
        for flags in ((), (cv2.IMWRITE_JPEG_RST_INTERVAL, 3), (cv2.IMWRITE_JPEG_OPTIMIZE, 1))
    ]
    tried = refused = 0
    slowest = 0.0
    for rng in fuzz.rounds():
        data = files[int(rng.integers(len(files)))]
        start = 0 if rng.random() < 0.3 else data.index(b"\xff\xda")
        data = data[:start] + fuzz.mutated(data[start:], rng)
        tried += 1
        began = time.perf_counter()
        try:
            width, height = check_image(data, "")[1].upright
            if not 0 < width * height < 1 << 20:
                continue
            box = (width // 3, height // 2, -(-width // 2), -(-height // 3))
            found = part(decoder, data, box)
            for divisor in (2, 4, 8):
                part(decoder, data, (0, 0, 1, 1), divisor)
        except DataError:
            continue
        slowest = max(slowest, time.perf_counter() - began)
        refused += found is None
        if found is not None:
            left, top, *size = box
            expected = whole(data)[top : top + size[1], left : left + size[0]]
            np.testing.assert_array_equal(found, expected, str(rng.bit_generator.state))
    capfd.readouterr()
    assert slowest < 10 and 0 < refused < tried
    with capfd.disabled():
        fuzz.tell("JPEG files for parts", tried, refused, slowest)


def test_headers_that_lie(decoder):
    data = encoded(picture((75, 93)))
    rng = random.Random(1)
    for _ in range(3000):
        spoilt = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            spoilt[rng.randrange(2, data.index(b"\xff\xda") + 12)] = rng.randrange(256)
        with contextlib.suppress(DataError):
            width, height = check_image(bytes(spoilt), "")[1].upright
            part(decoder, bytes(spoilt), (0, 0, min(50, width), min(50, height)))


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 20, 160, 300, 700, -2, -1])
def test_files_that_are_cut_short(decoder, cut):
    data = encoded(picture((75, 93)))[:cut]
    assert decoder.part(data, (0, 0, 1, 1)) is None
    with pytest.raises(DataError):
        check_image(data, "")


def test_other_files(decoder):
    image = picture((20, 30))
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", cv2.imencode(".png", image)[1].tobytes()):
        assert decoder.part(data, (0, 0, 1, 1)) is None


@pytest.mark.parametrize(
    "box", [(-1, 0, 5, 5), (0, 0, 94, 5), (90, 70, 4, 5), (0, 0, 0, 5), (0, 75, 1, 1)]
)
def test_boxes_outside(decoder, box):
    assert part(decoder, encoded(picture((75, 93))), (*box[:2], max(0, box[2]), box[3])) is None


# What is drawn


def drawn_by_numpy(key, shape, area, aspect, flips):
    rng = generator_of(key)
    box = random_box(shape, rng, area, aspect)
    return box, bool(flips and rng.random() < 0.5)


AREAS = ((0.08, 1.0), (0.3, 0.3), (0.9, 1.0), (1e-6, 1e-3))
ASPECTS = ((3 / 4, 4 / 3), (1.0, 1.0), (0.1, 10.0), (4.0, 5.0), (1.0, 1e30))


def test_numbers_are_numpys(decoder):
    """Of keys of all lengths, and images of all sizes, also where no attempt fits."""
    assert decoder.draws
    chosen, mirrored, rng = set(), 0, random.Random(0)
    for number in range(6000):
        most = rng.choice((1, 3, 40, 700, 65_000, 2_000_000_000))  # the last: some are drawn again
        shape = rng.randint(1, most), rng.randint(1, most)
        key = tuple(
            rng.randrange(1 << rng.choice((1, 8, 31, 33, 63))) for _ in range(4 + number % 2)
        )
        how = rng.choice(AREAS), rng.choice(ASPECTS), bool(number % 3)
        found = decoder.draw(b"", shape, key, *how)
        assert found == drawn_by_numpy(key, shape, *how), (shape, key, how)
        chosen.add(found[0])
        mirrored += found[1]
    assert len(chosen) > 3000 and 1800 < mirrored < 2200
    for seed in range(3000):  # as training does
        key = sample_key(seed % 3, seed % 90, seed)
        found = decoder.draw(b"", (500, 375), key, AREAS[0], ASPECTS[0])
        assert found == drawn_by_numpy(key, (500, 375), AREAS[0], ASPECTS[0], True)


def test_the_size_is_read_where_it_is_plain(decoder):
    image, key = picture((75, 93)), (1, 2, 3, 4)
    how = (key, AREAS[0], ASPECTS[0])
    expected = decoder.draw(b"", (93, 75), *how)
    assert decoder.draw(encoded(image), None, *how) == expected
    assert decoder.draw(by_pillow(image[:, :, 0]), None, *how) == expected
    turned = with_segment(encoded(image), exif(6))
    cut = encoded(image)[:-2]
    progressive = encoded(image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    png = cv2.imencode(".png", image)[1].tobytes()
    cmyk = io.BytesIO()
    Image.fromarray(image).convert("CMYK").save(cmyk, "jpeg")
    for data in (turned, cut, progressive, png, b"", cmyk.getvalue()):
        assert decoder.draw(data, None, *how) is None


def test_more_pixels_than_are_read(decoder):
    data = bytearray(encoded(picture((75, 93))))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    assert decoder.draw(bytes(data), None, (1, 2), AREAS[0], ASPECTS[0]) is None


def test_another_numpy_is_noticed(decoder, monkeypatch):
    """Its numbers are drawn then, and not those that are written down here."""
    monkeypatch.setattr(np.random, "PCG64", np.random.PCG64DXSM)
    assert not decoder._draws_alike()


# In the loader


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twelve files of all kinds, the last of them no JPEG file."""
    root = tmp_path_factory.mktemp("photos")
    (root / "a").mkdir()
    for index in range(11):
        flags = (cv2.IMWRITE_JPEG_PROGRESSIVE, index % 2)
        data = encoded(picture((90 + 7 * index, 120 - index), index), *flags)
        (root / "a" / f"{index:02}.jpg").write_bytes(with_segment(data, exif(1 + index % 8)))
    cv2.imwrite(str(root / "a" / "11.png"), picture((50, 60)))
    return load_folder(root)


def batch(copies=1, count=12):
    indices = np.arange(count * copies) // copies
    return BatchIndices(3, indices, np.arange(count * copies) % copies)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(
    "augment",
    [
        *({}, {"flip": False}, {"jitter": 0.2}, {"erasing": 0.9}, {"rand_augment": {}}),
        *({"trivial_augment": {}}, {"jitter": 0.2, "erasing": 0.5}),
    ],
)
def test_batches_are_those_of_whole_images(decoder, photos, workers, copies, augment):
    transform = TrainTransform(32, Augment(**augment))
    (found,) = Loader(photos, transform, "RGB", [batch(copies)], 5, workers)
    for index, copy, image in zip(*batch(copies)[1:], found.images):
        rng = sample_generator(5, 3, int(index), int(copy))
        expected = transform(cv2.imread(photos.paths[index]), rng)[:, :, ::-1]
        np.testing.assert_array_equal(image.transpose(1, 2, 0), expected)


def test_only_the_part_is_decoded(decoder, photos, monkeypatch):
    """Whole images: of the file that is no JPEG, and of those that several crops are cut from."""
    read = []
    for name in ("loader.decode_image", "image.decode_image"):
        target = f"official.vision.classification.data.{name}"
        monkeypatch.setattr(target, lambda data, path: read.append(path) or whole(data))
    list(Loader(photos, TrainTransform(32), "BGR", [batch()], workers=0))
    assert read == [photos.paths[11]]
    read.clear()
    list(Loader(photos, TrainTransform(32), "BGR", [batch(2)], workers=0))
    assert read == list(photos.paths)


def test_scaled_batches_are_near_exact_ones(decoder, tmp_path):
    image = cv2.resize(picture((9, 12)), (800, 600), interpolation=cv2.INTER_CUBIC)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(encoded(image, cv2.IMWRITE_JPEG_QUALITY, 95))
    folder, parts = load_folder(tmp_path), []
    monitored = decoder.part

    class Watched(PartDecoder):
        draws = False

        def __init__(self):
            pass

        def part(self, data, box, orientation=1, divisor=1):
            parts.append((box, divisor))
            return monitored(data, box, orientation, divisor)

    exact = TrainTransform(40, Augment(area=(0.5, 1.0)))
    scaled = TrainTransform(40, Augment(area=(0.5, 1.0), decode="scaled"))
    for seed in range(6):
        data = folder.content(0)
        header = check_image(data, "")[1]
        one = exact.of_file(data, header, (seed,), Watched())
        other = scaled.of_file(data, header, (seed,), Watched())
        assert np.abs(one.astype(int) - other).mean() < 8 < one.std() / 2
    assert {divisor for _, divisor in parts[::2]} == {1}
    assert {divisor for _, divisor in parts[1::2]} == {8}


def with_size(data, width, height):
    """A baseline file whose header claims these pixels."""
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[: len(data) // 2], "the image is cut short"),
        (lambda data: b"", "the file is empty"),
        (lambda data: b"<!DOCTYPE html><p>404", "not an image but a web page"),
        (lambda data: with_size(data, 65_535, 65_535), f"at most {MAX_PIXELS:,} are read"),
        (lambda data: data.replace(b"\xff\xc0", b"\xff\xc3", 1), "a lossless JPEG image"),
    ],
)
def test_what_no_decoder_may_see_is_named(decoder, tmp_path, spoil, reason, monkeypatch):
    monkeypatch.setattr(decoder, "_part", lambda *_: pytest.fail("it was decoded"))
    data = encoded(picture((90, 120)))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.jpg").write_bytes(spoil(data))
    with pytest.raises(DataError, match=f"a/bad.jpg: .*{reason}"):
        list(Loader(load_folder(tmp_path), TrainTransform(32), "BGR", [batch(1, 1)], workers=0))


def test_damage_that_a_crop_meets_is_named(decoder, tmp_path):
    """The whole image is decoded then, by the decoder that says what is left of it."""
    pytest.importorskip("simplejpeg")
    data = bytearray(encoded(picture((75, 93))))
    middle = (data.index(b"\xff\xda") + len(data)) // 2
    data[middle : middle + 2] = b"\xff\xd9"  # an end before the end
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "hurt.jpg").write_bytes(data)
    transform = TrainTransform(32, Augment(area=(1.0, 1.0), aspect=(1.0, 1.3)))
    with remarks() as said:
        (found,) = Loader(load_folder(tmp_path), transform, "BGR", [batch(1, 1)], 5, workers=0)
    assert "a/hurt.jpg: a damaged JPEG image" in said[0]
    expected = transform(whole(bytes(data)), sample_generator(5, 3, 0))
    np.testing.assert_array_equal(found.images[0].transpose(1, 2, 0), expected)


def test_many_threads_at_once(decoder, photos):
    data = photos.content(5)
    expected, wrong = decoder.part(data, (10, 10, 50, 40)), []

    def decode():
        for _ in range(100):
            if not np.array_equal(decoder.part(data, (10, 10, 50, 40)), expected):
                wrong.append(1)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("libraries", [[], ["/no/such/libjpeg.so.62"], ["libz.so.1"]])
def test_without_a_library_whole_images_are_decoded(photos, libraries, monkeypatch, caplog):
    monkeypatch.setattr(jpeg, "_libraries", lambda: libraries)
    jpeg.part_decoder.cache_clear()
    try:
        (found,) = Loader(photos, TrainTransform(32), "BGR", [batch()], 5, workers=0)
    finally:
        jpeg.part_decoder.cache_clear()
    assert "JPEG files are decoded whole, which takes longer: no libjpeg-turbo" in caplog.text
    rng = sample_generator(5, 3, 2)
    expected = TrainTransform(32)(cv2.imread(photos.paths[2]), rng)
    np.testing.assert_array_equal(found.images[2].transpose(1, 2, 0), expected)


def main(folder, pairs):
    """Compare random parts of the files in a folder, re-encoded in every form as well."""
    rng, compared, left = random.Random(0), 0, 0
    decoder = PartDecoder()
    files = [path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()]
    while compared < pairs:
        for number, data in enumerate(files):
            image = whole(data)
            factor = rng.choice(list(SAMPLING.values()))
            flags = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_QUALITY]
            flags += [rng.randint(20, 98), cv2.IMWRITE_JPEG_PROGRESSIVE, rng.randint(0, 1)]
            flags += [cv2.IMWRITE_JPEG_RST_INTERVAL, rng.choice([0, 0, 1, 7, 40])]
            cut = image[: rng.randint(1, image.shape[0]), : rng.randint(1, image.shape[1])]
            grey = by_pillow(cv2.cvtColor(cut, cv2.COLOR_BGR2GRAY))
            for each in (data, encoded(cut, *flags), grey):
                if part(decoder, each, (0, 0, 1, 1)) is None:
                    left += 1
                    continue
                compared += same(decoder, each, 8, number)
    sys.stdout.write(f"{compared} parts equal, {left} files left to other decoders\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
