import struct
import subprocess
import sys

import numpy as np
import pytest

from official.vision.classification.errors import WeightsError
from official.vision.classification.readers import mindspore_ckpt
from official.vision.classification.readers.mindspore_ckpt import matches
from tests.vision.classification.readers.handmade import (
    field,
    memory_below,
    reading,
    value,
    varint,
    with_crc,
)

read = reading(mindspore_ckpt)

TWO = struct.pack("<2f", 1.5, -2.5)
GOOD = value("w", "Float32", (2,), TWO)


def refusal(data):
    with pytest.raises(WeightsError) as caught:
        read(data, "some/w.ckpt")
    message = str(caught.value)
    assert message.startswith("some/w.ckpt: cannot be read as a MindSpore checkpoint: ")
    assert "\n" not in message and len(message) < 400
    return message


def one(*entry):
    found, metadata = read(value("w", *entry), "f")
    assert list(found) == ["w"] and metadata == {}
    return found["w"]


def test_a_row_of_tensors():
    data = GOOD + value("moments.w", "Float32", (1, 2), TWO) + value("note", "str", (), b"text")
    assert matches(data[:512])
    found, _ = read(data, "f")
    assert list(found) == ["w", "moments.w"]
    assert found["w"].tolist() == [1.5, -2.5] and found["moments.w"].shape == (1, 2)


TYPES = {"Float16": "f2", "Float32": "f4", "Float64": "f8", "Bool": "b1"}
for _bits in (8, 16, 32, 64):
    TYPES.update({f"Int{_bits}": f"i{_bits // 8}", f"UInt{_bits}": f"u{_bits // 8}"})
    TYPES[f"Uint{_bits}"] = f"u{_bits // 8}"


@pytest.mark.parametrize("kind", TYPES)
def test_every_type(kind):
    expected = np.array([[1, 0, 3], [4, 5, 100]]).astype(TYPES[kind])
    found = one(kind, (2, 3), expected.tobytes())
    np.testing.assert_array_equal(found, expected, strict=True)
    assert found.flags.aligned and found.flags.c_contiguous


def test_bfloat16_is_widened():
    found = one("BFloat16", (2,), struct.pack("<2H", 0x3F80, 0xC020))
    np.testing.assert_array_equal(found, np.array([1.0, -2.5], np.float32), strict=True)


def test_scalars_and_empty_tensors():
    for dims in ((), (0,)):  # the second as MindSpore 1 wrote it
        assert one("Int32", dims, struct.pack("<i", 7)) == np.array(7)
        assert one("Int32", dims, struct.pack("<i", 7)).shape == ()
    assert one("Int32", (1,), struct.pack("<i", 7)).shape == (1,)
    for dims in ((0,), (0, 3)):
        assert one("Float32", dims, b"").shape == dims
    without = field(1, field(1, b"w") + field(2, b"\x08\x00" + field(2, b"Float32")))
    assert read(without, "f")[0]["w"].shape == (0,)


def test_sizes_may_be_packed():
    proto = field(1, varint(1) + varint(2)) + field(2, b"Float32") + field(3, TWO)
    assert read(field(1, field(1, b"w") + field(2, proto)), "f")[0]["w"].shape == (1, 2)


def test_checksums():
    data = with_crc(GOOD)
    assert data[-17:-10] == b"crc_num"
    assert read(data, "f")[0]["w"].tolist() == [1.5, -2.5]
    for at in (data.index(TWO), len(data) - 1, len(data) - 5):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert "its checksum is wrong" in refusal(changed)


def test_tensors_in_pieces():
    six = np.arange(6, dtype=np.float32)
    raw = six.tobytes()
    cuts = [raw[:8], raw[8:10], raw[10:]]
    data = GOOD.replace(b"w", b"v") + b"".join(value("w", "Float32", (3, 2), cut) for cut in cuts)
    found, _ = read(with_crc(data + value("x", "Float32", (2,), TWO)), "f")
    assert list(found) == ["v", "w", "x"]
    np.testing.assert_array_equal(found["w"], six.reshape(3, 2), strict=True)


def pieces(*entries):
    return b"".join(value(*entry) for entry in entries)


FIRST = ("w", "Float32", (4,), TWO)
OTHER = ("v", "Float32", (2,), TWO)
LARGE = field(1, field(1, b"w" * 5000))
WRONG = {
    "whole and again": (GOOD + GOOD, "tensor w comes twice"),
    "apart": (pieces(FIRST, OTHER, FIRST), "tensor w comes twice"),
    "of another shape": (pieces(FIRST, ("w", "Float32", (2, 2), TWO)), "tensor w comes twice"),
    "of another type": (pieces(FIRST, ("w", "Int32", (4,), TWO)), "tensor w comes twice"),
    "a piece too many": (pieces(FIRST, FIRST, FIRST), "tensor w comes twice"),
    "a piece too few": (pieces(FIRST), "of shape (4,) needs 16 bytes and has 8"),
    "the last too long": (pieces(FIRST, (*FIRST[:3], TWO * 2)), "needs 16 bytes and has 24"),
    "text twice": (pieces(("t", "str", (), b"a")) * 2, "tensor t comes twice"),
    "too few bytes": (value("w", "Float32", (3,), TWO), "needs 12 bytes and has 8"),
    "too many bytes": (value("w", "Float32", (1,), TWO), "needs 4 bytes and has 8"),
    "empty with bytes": (value("w", "Float32", (0,), TWO), "needs 0 bytes and has 8"),
    "scalar of two": (value("w", "Float32", (), TWO), "needs 4 bytes and has 8"),
    "negative": (value("w", "Float32", (-2,), TWO), "no shape"),
    "two negatives": (value("w", "Float32", (-2, -1), TWO), "no shape"),
    "2**31": (value("w", "Float32", (2**31,), TWO), "no shape"),
    "2**30 x 8": (value("w", "Float32", (2**30,) * 8, TWO), "too large"),
    "empty and huge": (value("w", "Float32", (0,) + (2**30,) * 3, b""), "too large"),
    "nine sizes": (value("w", "Float32", (1,) * 8 + (2,), TWO), "at most 8"),
    "a million sizes": (value("w", "Float32", (1,) * 1_000_000, TWO), "more than 64 fields"),
    "a million packed sizes": (
        field(1, field(1, b"w") + field(2, field(1, b"\x01" * 1_000_000) + field(2, b"Int8"))),
        "something large beside its tensor",
    ),
    "complex": (value("w", "Complex64", (1,), TWO), "tensor w is of type Complex64"),
    "no type": (value("w", "", (2,), TWO), "tensor w is of type "),
    "a map": (field(1, field(1, b"w") + field(3, b"")), "Value w has no tensor; maps"),
    "a large map": (field(1, field(1, b"w") + field(3, b"\n\0" * 9999)), "maps are not read"),
    "a large name": (LARGE, "something large"),
    "no name": (value("", "Float32", (2,), TWO), "Value  has no tensor"),
    "a name not UTF-8": (GOOD.replace(b"\x01w", b"\x01\xff"), "a name is not UTF-8"),
    "two tensors": (field(1, field(1, b"w") + field(2, b"") * 2), "more than one tensor"),
    "a tensor that is a number": (field(1, field(1, b"w") + b"\x10\x05"), "has no tensor"),
    "another message": (b"\x12\x03abc", "a field 2 that is no Value"),
    "a number at the top": (GOOD + b"\x08\x01", "a field 1 that is no Value"),
    "a group": (b"\x0b\x0c", "wire type 3"),
    "a fixed number": (b"\x0d\x00\x00\x00\x00", "wire type 5"),
    "a length of 2**60": (b"\x0a" + varint(2**60) + b"x", "needs 1,152,921,504,606,846,976 bytes"),
    "a length of 2**70": (b"\x0a" + b"\x80" * 10 + b"\x01", "more than 64 bits"),
    "an inner length of 2**60": (field(1, b"\x0a" + varint(2**60) + b"x"), "a field needs"),
    "a content of 2**60": (
        field(1, field(1, b"w") + field(2, field(2, b"Int8") + b"\x1a" + varint(2**60))),
        "a field needs",
    ),
    "half a number": (b"\x0a\x80", "middle of a number"),
    "a sizes field that is text": (
        field(1, field(1, b"w") + field(2, field(1, b"\x80") + field(2, b"Int8"))),
        "a message is damaged",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_do_not_add_up(case):
    data, expected = WRONG[case]
    with memory_below(4 << 20):
        assert expected in refusal(data)


def test_the_number_of_values_is_bounded(monkeypatch):
    with memory_below(4 << 20):
        assert "has no tensor" in refusal(b"\x0a\x00" * 2_000_000)
    many = b"".join(value(f"w{index}", "Int8", (1,), b"x") for index in range(100))
    monkeypatch.setattr(mindspore_ckpt, "MAX_VALUES", 100)
    assert len(read(many, "f")[0]) == 100
    assert "more than 100 fields" in refusal(many + GOOD)


def test_bytes_of_tensors_are_not_copied():
    data = value("w", "Int8", (1 << 20,), bytes(1 << 20))
    read(GOOD, "f")  # makes protobuf's classes
    with memory_below(1 << 18):
        read(data, "f")


def test_what_starts_otherwise_is_no_checkpoint():
    for data in (b"", b"\n", b"\n\n\n\nabc", b"\n\x05ab", b"text", bytes(100), b"\x80\x02}."):
        assert not matches(data)
    assert not matches(GOOD.replace(b"\x01w", b"\x01\x07"))  # a control character in the name


def test_the_package_may_be_missing_or_old(monkeypatch):
    for module in ("google.protobuf.message_factory", "google.protobuf.descriptor_pb2"):
        with monkeypatch.context() as patch:
            mindspore_ckpt._message_classes.cache_clear()
            patch.setitem(sys.modules, module, None)
            with pytest.raises(WeightsError, match="package protobuf is not installed or too old"):
                read(GOOD, "some/w.ckpt")
    assert read(GOOD, "f")[0]["w"].tolist() == [1.5, -2.5]


def test_protobuf_is_only_loaded_for_such_a_file():
    code = (
        "import sys\n"
        "from official.vision.classification.readers import mindspore_ckpt as m\n"
        "assert not [name for name in sys.modules if name.startswith('google.protobuf')]\n"
        f"m.read({GOOD!r}, 'f')\n"
        "assert 'google.protobuf' in sys.modules\n"
    )
    root = str(mindspore_ckpt.__file__).split("/official/")[0]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=120)
